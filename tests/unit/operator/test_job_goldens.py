"""Names and arguments of every stage's Job are pinned: a change of code that renames Jobs builds everything anew.

Write the files anew with UPDATE_GOLDEN=1 and read the diff.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffusion_operator import naming
from tests.support.operator.build_specs import ARCHIVE, HUB, SPECS
from tests.support.operator.fake_cluster import REVISION, FakeCluster
from tests.support.operator.reconciling import serve

GOLDEN = Path(__file__).parent / "golden_jobs"
CLAIM = {"persistentVolumeClaim": {"claimName": "models", "path": "a/b"}}
TOKEN = {"huggingFace": {"repo": "demo/gated", "revision": REVISION, "tokenSecretRef": {"name": "hub"}}}
GPU = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}}
SLICE = {"name": "slice", "gpu": {"product": "NVIDIA-A100-SXM4-80GB", "resourceName": "nvidia.com/mig-1g.10gb"}}
MATRIX: dict[str, dict[str, Any]] = {
    **SPECS,
    "another denoiser": {"model": {"source": HUB, "components": {"denoiser": {"source": CLAIM}}}},
    "another vae": {"model": {"source": TOKEN, "components": {"vae": {"source": ARCHIVE}}}},
    "another vae for previews": {
        "model": {"source": HUB, "previewVae": {"source": CLAIM}, "components": {"vae": {"source": ARCHIVE}}},
        "pipelines": [{"task": "generate", "steps": [4], "previews": [2]}],
    },
    "a refiner": {
        "model": {
            "source": HUB,
            "family": "StableDiffusionXL",
            "refiner": {"source": CLAIM},
            "components": {"vae": {"source": ARCHIVE}},
        },
    },
    "another text encoder": {"model": {"source": CLAIM, "components": {"text_encoder": {"source": HUB}}}},
    "another denoiser with a controlnet": {
        "model": {
            "source": HUB,
            "components": {"denoiser": {"source": ARCHIVE}, "text_encoder": {"source": CLAIM}},
            "controlNets": [{"name": "canny", "source": HUB}],
        }
    },
    "gpus": {
        "targets": [GPU, SLICE, {"name": "cpu"}],
        "engines": {"optimizationLevel": 4, "workspace": 2048},
        "shapes": {"batch": {"max": 16}, "height": {"opt": 768}},
    },
    "a variant": {
        "rollout": {
            "strategy": "RollingUpdate",
            "traffic": {"gateway": {"name": "web"}},
            "experiment": {
                "variants": [
                    {"name": "a", "weight": 10, "model": {"loras": [{"source": ARCHIVE}]}},
                    {"name": "b", "weight": 10, "scheduler": {"type": "Euler"}},
                ]
            },
        }
    },
    "what is taken of a source": {
        "model": {
            "source": {**HUB, "subfolder": "v2/large", "variant": "fp16"},
            "components": {"vae": {"source": {**CLAIM, "subfolder": "vae-ft"}}},
            "loras": [{"source": {**ARCHIVE, "subfolder": "style"}, "file": "a.safetensors"}],
        }
    },
    "a claim read again": {
        "model": {"source": {"persistentVolumeClaim": {"claimName": "models", "path": "a/b", "version": "2"}}}
    },
    # The key of a collection counts intervals since 1970: with this one it is the same at any time.
    "a collection": {"storage": {"size": "20Gi", "gc": {"interval": "99999999h"}}},
}


def jobs(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """What is created for a pipeline until it is served."""
    cluster = FakeCluster()
    cluster.objects["PersistentVolumeClaim", "models"] = {"metadata": {"name": "models", "uid": "uid-models"}}
    cluster.apply_pipeline(**spec)
    serve(cluster)
    bodies = [cluster.objects["Job", name] for name in cluster.names("Job")]
    return [
        {
            "name": body["metadata"]["name"],
            "key": body["metadata"]["labels"][naming.KEY],
            "component": body["metadata"]["labels"].get(naming.COMPONENT),
            "sku": body["metadata"]["labels"].get(naming.TARGET),
            "arguments": body["spec"]["template"]["spec"]["containers"][0]["args"][2:],
        }
        for body in bodies
    ]


def file_of(name: str) -> Path:
    return GOLDEN / f"{name.replace(' ', '-')}.yaml"


@pytest.mark.parametrize("name", MATRIX)
def test_the_jobs_of_a_pipeline_are_as_the_golden_file_says(name: str) -> None:
    actual = jobs(MATRIX[name])
    assert {"fetch", "export", "compile", "assemble", "parity"} <= {item["arguments"][0] for item in actual}
    if os.environ.get("UPDATE_GOLDEN"):
        file_of(name).write_text(yaml.safe_dump(actual, sort_keys=False, width=110))
    assert yaml.safe_load(file_of(name).read_text()) == actual


def test_no_golden_file_of_a_pipeline_is_left_over() -> None:
    assert {*GOLDEN.iterdir()} == {file_of(name) for name in MATRIX}
