"""Specs whose builds have every kind of Job, source and engine."""

from typing import Any

from tests.support.operator.fake_cluster import REVISION

HUB = {"huggingFace": {"repo": "demo/other", "revision": REVISION}}
ARCHIVE = {"archive": {"url": "https://files.example/a.tar", "sha256": "a" * 64}}
SPECS: dict[str, dict[str, Any]] = {
    "the shortest": {},
    "everything about the model": {
        "model": {
            "source": ARCHIVE,
            "components": {"denoiser": {"source": HUB}, "vae": {"source": HUB}, "text_encoder": {"source": HUB}},
            "loras": [{"source": HUB, "file": "a.safetensors", "weight": 0.5}],
            "controlNets": [{"name": "canny", "source": HUB}, {"name": "depth", "source": ARCHIVE}],
            "ipAdapter": {"source": HUB, "file": "ip.safetensors", "imageEncoder": {"source": ARCHIVE}},
            "clipSkip": 1,
            "longPrompts": True,
            "guidanceRescale": True,
        },
        "precision": "float16",
        "componentPrecision": {"vae_decoder": "float32"},
    },
    "Stable Diffusion XL": {
        "model": {
            "source": ARCHIVE,
            "family": "StableDiffusionXL",
            "components": {"text_encoder_2": {"source": HUB}},
            "loras": [{"source": HUB}],
            "controlNets": [{"name": "canny", "source": HUB}],
            "clipSkip": 1,
        },
        "precision": "float16",
        "componentPrecision": {"text_encoder_2": "float32"},
    },
    "an acceleration": {
        "model": {"source": HUB, "loras": [{"source": ARCHIVE}], "guidanceRescale": True},
        "acceleration": {"deepCache": {"interval": 3}, "guidance": {"stop": 0.6}},
        "componentPrecision": {"denoiser": "float16"},
    },
    "every task": {
        "model": {
            "source": HUB,
            "controlNets": [{"name": "canny", "source": HUB}],
            "ipAdapter": {"source": HUB},
            "safetyChecker": {"source": HUB},
        },
        "pipelines": [
            {"task": "generate", "steps": [4, 20], "previews": [2, 10]},
            {"task": "generate", "steps": [20], "features": ["controlnet", "ip_adapter", "embeddings"]},
            {"task": "img2img", "steps": [20]},
            {"task": "inpaint", "steps": [20], "features": ["controlnet"]},
        ],
        "schedulers": [
            {"type": "DPMSolverMultistep", "useKarrasSigmas": True, "name": "karras"},
            {"type": "DPMSolverMultistep"},
            {"type": "EulerAncestral"},
            {"type": "LCM"},
        ],
        "serving": {
            "batching": {"maxQueueDelay": "5ms", "preferredBatchSizes": [4, 8], "takeTurns": False, "priorities": True}
        },
    },
}
