"""Hub repositories that no pipeline can be made of, small enough for a ConfigMap, beside the demo checkpoint."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from examples.demo_hub import revision_of
from examples.demo_support import hub
from tests.support.cluster import corrupt_weights
from tests.support.paths import EXAMPLES

Files = Mapping[str, bytes]

INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.36.0",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
LAYOUT: Files = {
    "model_index.json": json.dumps(INDEX).encode(),
    "scheduler/scheduler_config.json": b"{}",
    "text_encoder/config.json": b"{}",
    "text_encoder/model.safetensors": b"",
    "tokenizer/tokenizer_config.json": b"{}",
    "tokenizer/vocab.json": b"{}",
    "tokenizer/merges.txt": b"",
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": b"",
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model.safetensors": b"",
}


def _without(prefix: str) -> dict[str, bytes]:
    return {name: data for name, data in LAYOUT.items() if not name.startswith(prefix)}


REPOSITORIES: Mapping[str, Files] = {
    "pickles": {**_without("unet/diffusion"), "unet/diffusion_pytorch_model.bin": b"\x80\x04."},
    "no-vae": _without("vae/"),
    "other-class": {
        **LAYOUT,
        "model_index.json": json.dumps({**INDEX, "_class_name": "FluxPipeline"}).encode(),
    },
}


def revision(name: str) -> str:
    """The commit that the hub gives to a broken repository."""
    with tempfile.TemporaryDirectory() as folder:
        for path, data in REPOSITORIES[name].items():
            target = Path(folder, path)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(data)
        return revision_of(Path(folder))


def denoiser(name: str) -> tuple[str, str]:
    """Repository and revision of a denoiser: of examples/demo-unets, or one that is corrupted in the hub's pod."""
    folder = EXAMPLES / "demo-unets" / name
    if folder.is_dir():
        return f"demo/{name}", revision_of(folder)
    with tempfile.TemporaryDirectory() as out:
        corrupt_weights.write(EXAMPLES / "demo-checkpoint" / "unet", Path(out))
        return f"corrupted/{name}", revision_of(Path(out, name))


def hub_objects(namespace: str, image: str, repositories: Mapping[str, Files]) -> list[dict[str, Any]]:
    """The demo's hub with a second organisation, `broken`."""
    objects: list[dict[str, Any]] = json.loads(hub.manifest(namespace, image))["items"]
    files = {f"{name}/{path}": data for name, content in repositories.items() for path, data in content.items()}
    keys = {path: path.replace("/", "__") for path in files}
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "broken-repositories", "namespace": namespace},
        "binaryData": {keys[path]: base64.b64encode(data).decode() for path, data in files.items()},
    }
    items = [{"key": key, "path": path} for path, key in keys.items()]
    pod = next(one for one in objects if one["kind"] == "Deployment")["spec"]["template"]["spec"]
    server = pod["containers"][0]
    pod["volumes"] = [
        {"name": "broken", "configMap": {"name": "broken-repositories", "items": items}},
        {"name": "corrupt-weights", "configMap": {"name": "corrupt-weights"}},
        {"name": "corrupted", "emptyDir": {}},
    ]
    corrupted = {"name": "corrupted", "mountPath": "/srv/hub/corrupted"}
    command = ["python3", "/opt/corrupt-weights/corrupt_weights.py", "/srv/hub/demo/shapes/unet", "/srv/hub/corrupted"]
    pod["initContainers"] = [
        {
            **{key: server[key] for key in ("image", "resources", "securityContext")},
            "name": "corrupt-weights",
            "command": command,
            "volumeMounts": [corrupted, {"name": "corrupt-weights", "mountPath": "/opt/corrupt-weights"}],
        }
    ]
    server["volumeMounts"] = [{"name": "broken", "mountPath": "/srv/hub/broken"}, corrupted]
    program = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "corrupt-weights", "namespace": namespace},
        "data": {"corrupt_weights.py": Path(corrupt_weights.__file__).read_text()},
    }
    return [config, program, *objects]
