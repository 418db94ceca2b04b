"""Test requests: fixed prompts, seeds and images, by the task and features of an ensemble."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffusion_contract import python_models
from diffusion_contract.python_models import GENERATE, IMG2IMG, INPAINT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from diffusion_builder.repository.graph import Ensemble
    from diffusion_contract.tensors import Tensor

Pixels = NDArray[np.uint8]
_NAME = re.compile(
    rf"(?P<task>{GENERATE}|{IMG2IMG}|{INPAINT})(?P<controlnet>_controlnet)?(?P<ip_adapter>_ip_adapter)?"
    r"(?P<embeddings>_embeddings)?_(?P<steps>\d+)(?:_(?P<scheduler>[a-z0-9]+))?_pipeline"
)
_CONTROL_IMAGE = python_models.control_image("").pixels.name
PROMPTS = ("a red circle on a blue background", "a large green star")
NEGATIVE = ("a photo, blurred", "")
SEEDS = (7, 2**32 + 5)
GUIDANCE = 5.0
STRENGTH = 0.6
CONTROL_SCALE = 0.8
IP_ADAPTER_WEIGHT = 0.7
_EMBEDDINGS_SEED = 11


@dataclass(frozen=True)
class TestRequest:
    """One request of two samples.

    Args:
        ensemble: its name.
        task: generate, img2img or inpaint.
        steps: N.
        height: of the images, pixels.
        width: of the images, pixels.
        scheduler: name of the ensemble's scheduler, or empty for the default.
        control_nets: names of the ControlNets whose images are sent.
        ip_adapter: whether a reference image is sent.
        embeddings: of the prompts, [2, 2, L, W] (negative, positive), where they are sent instead of texts.
        pooled: embeddings of whole prompts [2, 2, P], where the checkpoint reads such.
    """

    ensemble: str
    task: str
    steps: int
    height: int
    width: int
    scheduler: str = ""
    control_nets: tuple[str, ...] = ()
    ip_adapter: bool = False
    embeddings: NDArray[np.float32] | None = None
    pooled: NDArray[np.float32] | None = None

    def image(self) -> Pixels:
        """The input image: [H, W, 3], a gradient with a disc."""
        rows, columns = np.mgrid[0.0 : self.height, 0.0 : self.width]
        shades = [255 * rows / self.height, 255 * columns / self.width, np.full_like(rows, 90.0)]
        disc = np.hypot(rows - self.height / 2, columns - self.width / 2) < min(self.height, self.width) / 3
        return np.where(disc[..., None], np.array([220, 40, 60]), np.stack(shades, axis=-1)).astype(np.uint8)

    def mask(self) -> Pixels:
        """The mask: [H, W], a rectangle of 255."""
        mask = np.zeros((self.height, self.width), np.uint8)
        mask[self.height // 4 : self.height // 2, self.width // 4 :] = 255
        return mask

    def control(self) -> Pixels:
        """The control image: [H, W, 3], white edges."""
        gray = self.image()[..., 0].astype(np.int32)
        edges = np.abs(np.diff(gray, axis=1, prepend=gray[:, :1])) > 8  # noqa: PLR2004 - any
        return np.repeat(np.where(edges, 255, 0).astype(np.uint8)[..., None], 3, axis=-1)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The request; each tensor has the batch first."""
        tensors: dict[Tensor, NDArray[Any]] = {
            python_models.SEED: _numbers(SEEDS, np.int64),
            python_models.GUIDANCE_SCALE: _numbers([GUIDANCE] * 2, np.float32),
            python_models.HEIGHT: _numbers([self.height] * 2, np.int32),
            python_models.WIDTH: _numbers([self.width] * 2, np.int32),
        }
        if self.embeddings is None:
            tensors |= {python_models.PROMPT: _texts(PROMPTS), python_models.NEGATIVE_PROMPT: _texts(NEGATIVE)}
        else:
            tensors |= {
                python_models.NEGATIVE_PROMPT_EMBEDDINGS: self.embeddings[:, 0],
                python_models.PROMPT_EMBEDDINGS: self.embeddings[:, 1],
            }
        if self.pooled is not None:
            tensors |= {
                python_models.NEGATIVE_POOLED_PROMPT_EMBEDDINGS: self.pooled[:, 0],
                python_models.POOLED_PROMPT_EMBEDDINGS: self.pooled[:, 1],
            }
        if self.task != GENERATE:
            tensors |= {
                python_models.INPUT_IMAGE.pixels: _twice(self.image()),
                python_models.STRENGTH: _numbers([self.strength] * 2, np.float32),
            }
        if self.task == INPAINT:
            # The whole image is compared: nothing of the input image is pasted over it.
            tensors |= {
                python_models.MASK.pixels: _twice(self.mask()),
                python_models.PASTE_BACK: _numbers([False] * 2, np.bool_),
            }
        for name in self.control_nets:
            tensors |= {
                python_models.control_image(name).pixels: _twice(self.control()),
                python_models.control_scale(name): _numbers([CONTROL_SCALE] * 2, np.float32),
            }
        if self.ip_adapter:
            tensors |= {
                python_models.IP_ADAPTER_IMAGE.pixels: _twice(self.image()[None]),
                python_models.IP_ADAPTER_WEIGHT: _numbers([IP_ADAPTER_WEIGHT] * 2, np.float32),
            }
        return {tensor.name: array for tensor, array in tensors.items()}

    @property
    def strength(self) -> float:
        """Strength of img2img and inpaint, 0 to 1."""
        return STRENGTH

    @property
    def schedule_steps(self) -> int:
        """Steps of the schedule of which diffusers runs the last N at this strength."""
        if self.task == GENERATE:
            return self.steps
        return next(m for m in range(self.steps, 100 * self.steps) if min(int(m * self.strength), m) == self.steps)


def test_requests(
    ensembles: Iterable[Ensemble], size: tuple[int, int], text: tuple[int, int, int]
) -> Mapping[str, TestRequest]:
    """One request for the smallest step count of each combination of task, features and scheduler.

    Args:
        ensembles: of a repository.
        size: height and width in pixels.
        text: tokens per prompt, features per token, and features of a whole prompt's embedding or 0.
    """
    requests: dict[tuple[object, ...], TestRequest] = {}
    for ensemble in ensembles:
        request = _test_request(ensemble, size, text)
        if request is not None:
            key = (
                request.task, request.scheduler, request.control_nets, request.ip_adapter,
                request.embeddings is None,
            )  # fmt: skip
            if key not in requests or request.steps < requests[key].steps:
                requests[key] = request
    return {request.ensemble: request for request in requests.values()}


def _test_request(ensemble: Ensemble, size: tuple[int, int], text: tuple[int, int, int]) -> TestRequest | None:
    name = _NAME.fullmatch(ensemble.name)
    if name is None:
        return None
    ports = [port.name for port in ensemble.inputs]
    nets = tuple(
        sorted(
            p.removeprefix(_CONTROL_IMAGE) for p in ports if p.startswith(_CONTROL_IMAGE) and not p.endswith("_file")
        )
    )
    length, width, pooled_width = text
    random = np.random.default_rng(_EMBEDDINGS_SEED)
    embeddings = random.standard_normal((2, 2, length, width), np.float32) if name["embeddings"] else None
    pooled = random.standard_normal((2, 2, pooled_width), np.float32) if name["embeddings"] and pooled_width else None
    return TestRequest(
        ensemble.name, name["task"], int(name["steps"]), *size, name["scheduler"] or "",
        nets if name["controlnet"] else (), bool(name["ip_adapter"]), embeddings, pooled,
    )  # fmt: skip


def _numbers(values: Iterable[Any], dtype: type[np.generic]) -> NDArray[Any]:
    return np.array(list(values), dtype).reshape(-1, 1)


def _texts(values: Iterable[str]) -> NDArray[Any]:
    return np.array([value.encode() for value in values], object).reshape(-1, 1)


def _twice(array: NDArray[Any]) -> NDArray[Any]:
    return np.stack([array, array])
