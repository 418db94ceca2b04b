"""Small random checkpoints with everything around them, and repositories that serve all tasks with them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusion_builder.parity import in_process, provenance, requests
from diffusion_builder.parity.reference import Reference
from diffusion_builder.store import Kind, Store
from tests.support.builder import parts
from tests.support.builder.checkpoints import write_checkpoint
from tests.support.triton.client import answer, tensor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from diffusion_builder.parity.requests import TestRequest
    from diffusion_builder.store import Artifact
    from tests.support.triton.client import Pixels

FEATURES: tuple[list[str], ...] = ([], ["controlnet"], ["ip_adapter"], ["controlnet", "ip_adapter"])
_TEXT = (16, 32)
_DTYPES = {"f4": "FP32", "i4": "INT32", "i8": "INT64", "u1": "UINT8", "b1": "BOOL", "O": "BYTES"}


def checkpoint(folder: Path, unet: str, vae: parts.Write | None = None, text_width: int = _TEXT[1]) -> Path:
    """A random checkpoint with this UNet of `parts`, and this VAE."""
    write_checkpoint(folder, width=text_width)
    for part, write in {"unet": parts.unet(unet), **({"vae": vae} if vae else {})}.items():
        shutil.rmtree(folder / part)
        write(folder / part)
    return folder


def feature_sources(folder: Path) -> Mapping[str, Any]:
    """A ControlNet and an IP-Adapter for the UNet `sd1`, as a spec's `model` names them."""
    parts.controlnet(seed=1)(folder / "net")
    parts.ip_adapter()(folder / "adapter")
    parts.image_encoder()(folder / "adapter" / "image_encoder")
    return {
        "controlNets": [{"name": "edges", "source": {"path": str(folder / "net")}}],
        "ipAdapter": {"source": {"path": str(folder / "adapter")}},
    }


@dataclass(frozen=True)
class Conditioned:
    """A repository, with a request for each of its ensembles of the fewest steps and what diffusers draws for it."""

    repository: Artifact
    requests: Mapping[str, TestRequest]
    expected: Mapping[str, Pixels]

    @classmethod
    def of(cls, folder: Path, digest: str) -> Conditioned:
        """Look a repository up and let diffusers draw."""
        store = Store(folder)
        artifact: Artifact = store.get(Kind.REPOSITORY, digest)
        with in_process.load_repository(store, artifact) as server:
            sources = provenance.trace_provenance(store, artifact)
            test_requests = requests.test_requests(server.ensembles.values(), (64, 64), sources.text)
        reference = Reference(sources)
        # An IP-Adapter stays in diffusers' UNet.
        order = sorted(test_requests, key=lambda name: test_requests[name].ip_adapter)
        images = {name: reference.generate(test_requests[name]).images for name in order}
        return cls(artifact, test_requests, images)

    @property
    def models(self) -> Path:
        """What Triton is pointed at."""
        return self.repository.path / "models"


def send_request(http: str, ensemble: str, request: TestRequest, only: str | None = "image", **changes: Any) -> Any:  # noqa: ANN401
    """Send a request to real Triton; a change replaces a tensor, None omits it; `only` is the one requested output.

    Raises:
        tritonclient.utils.InferenceServerException: the server answers with an error.
    """
    arrays = {name: array for name, array in {**request.tensors(), **changes}.items() if array is not None}
    tensors = [tensor(name, _DTYPES[array.dtype.str.lstrip("<|")], array) for name, array in arrays.items()]
    return answer(http, ensemble, tensors, [only] if only else ())


def request_images(http: str, ensemble: str, request: TestRequest, **changes: Any) -> Pixels:  # noqa: ANN401 - arrays
    """The images [B, H, W, 3] that real Triton draws."""
    return np.asarray(send_request(http, ensemble, request, **changes).as_numpy("image"), np.uint8)
