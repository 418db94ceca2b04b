"""What an ensemble is asked by the check: fixed prompts, seeds and pictures, by its task and features."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffusion_builder.repository.python_models import GENERATE, IMG2IMG, INPAINT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from diffusion_builder.repository.graph import Ensemble

Pixels = NDArray[np.uint8]
_NAME = re.compile(
    rf"(?P<task>{GENERATE}|{IMG2IMG}|{INPAINT})(?P<controlnet>_controlnet)?(?P<ip_adapter>_ip_adapter)?"
    r"(?P<embeddings>_embeddings)?_(?P<steps>\d+)(?:_(?P<scheduler>[a-z0-9]+))?_pipeline"
)
_CONTROL = "control_image_"
PROMPTS = ("a red circle on a blue background", "a large green star")
NEGATIVE = ("a photo, blurred", "")
SEEDS = (7, 2**32 + 5)
GUIDANCE = 5.0
STRENGTH = 0.6
CONTROL_SCALE = 0.8
IP_ADAPTER_WEIGHT = 0.7
_EMBEDDINGS_SEED = 11


@dataclass(frozen=True)
class Question:
    """One request of two samples.

    Args:
        ensemble: its name.
        task: generate, img2img or inpaint.
        steps: N.
        height: of the pictures, pixels.
        width: of the pictures, pixels.
        scheduler: name of the scheduler that the ensemble is for, or empty for the default.
        control_nets: whose pictures are sent.
        ip_adapter: whether a reference picture is sent.
        embeddings: of the prompts, [2, 2, L, W] (negative, positive), where they are sent instead of texts.
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

    def picture(self) -> Pixels:
        """The picture that is changed: [H, W, 3], a gradient with a disc."""
        rows, columns = np.mgrid[0.0 : self.height, 0.0 : self.width]
        shades = [255 * rows / self.height, 255 * columns / self.width, np.full_like(rows, 90.0)]
        disc = np.hypot(rows - self.height / 2, columns - self.width / 2) < min(self.height, self.width) / 3
        return np.where(disc[..., None], np.array([220, 40, 60]), np.stack(shades, axis=-1)).astype(np.uint8)

    def mask(self) -> Pixels:
        """What is repainted: [H, W], a rectangle of 255."""
        mask = np.zeros((self.height, self.width), np.uint8)
        mask[self.height // 4 : self.height // 2, self.width // 4 :] = 255
        return mask

    def control(self) -> Pixels:
        """What ControlNets follow: [H, W, 3], white edges."""
        grey = self.picture()[..., 0].astype(np.int32)
        edges = np.abs(np.diff(grey, axis=1, prepend=grey[:, :1])) > 8  # noqa: PLR2004 - any
        return np.repeat(np.where(edges, 255, 0).astype(np.uint8)[..., None], 3, axis=-1)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The request; each tensor has the batch first."""
        found: dict[str, NDArray[Any]] = {
            "seed": _numbers(SEEDS, np.int64),
            "guidance_scale": _numbers([GUIDANCE] * 2, np.float32),
            "height": _numbers([self.height] * 2, np.int32),
            "width": _numbers([self.width] * 2, np.int32),
        }
        if self.embeddings is None:
            found |= {"prompt": _texts(PROMPTS), "negative_prompt": _texts(NEGATIVE)}
        else:
            found |= {
                "negative_prompt_embeddings": self.embeddings[:, 0], "prompt_embeddings": self.embeddings[:, 1],
            }  # fmt: skip
        if self.task != GENERATE:
            found |= {"input_image": _twice(self.picture()), "strength": _numbers([self.strength] * 2, np.float32)}
        if self.task == INPAINT:
            # The whole picture is compared, so that of the original nothing is pasted over it.
            found |= {"mask": _twice(self.mask()), "paste_back": _numbers([False] * 2, np.bool_)}
        for name in self.control_nets:
            found |= {
                f"{_CONTROL}{name}": _twice(self.control()),
                f"control_scale_{name}": _numbers([CONTROL_SCALE] * 2, np.float32),
            }
        if self.ip_adapter:
            found |= {
                "ip_adapter_image": _twice(self.picture()[None]),
                "ip_adapter_weight": _numbers([IP_ADAPTER_WEIGHT] * 2, np.float32),
            }
        return found

    @property
    def strength(self) -> float:
        """How far a picture is changed, 0 to 1."""
        return STRENGTH

    @property
    def schedule_steps(self) -> int:
        """Steps of the schedule of which diffusers runs the last N at this strength."""
        if self.task == GENERATE:
            return self.steps
        return next(m for m in range(self.steps, 100 * self.steps) if min(int(m * self.strength), m) == self.steps)


def questions(ensembles: Iterable[Ensemble], size: tuple[int, int], text: tuple[int, int]) -> Mapping[str, Question]:
    """One question for the smallest step count of each combination of task, features and scheduler.

    Args:
        ensembles: of a repository.
        size: height and width in pixels.
        text: tokens per prompt and features per token.
    """
    found: dict[tuple[object, ...], Question] = {}
    for ensemble in ensembles:
        question = _question(ensemble, size, text)
        if question is not None:
            key = (
                question.task, question.scheduler, question.control_nets, question.ip_adapter,
                question.embeddings is None,
            )  # fmt: skip
            if key not in found or question.steps < found[key].steps:
                found[key] = question
    return {question.ensemble: question for question in found.values()}


def _question(ensemble: Ensemble, size: tuple[int, int], text: tuple[int, int]) -> Question | None:
    name = _NAME.fullmatch(ensemble.name)
    if name is None:
        return None
    ports = [port.name for port in ensemble.inputs]
    nets = tuple(sorted(p.removeprefix(_CONTROL) for p in ports if p.startswith(_CONTROL) and not p.endswith("_file")))
    given = np.random.default_rng(_EMBEDDINGS_SEED).standard_normal((2, 2, *text), np.float32)
    return Question(
        ensemble.name, name["task"], int(name["steps"]), *size, name["scheduler"] or "",
        nets if name["controlnet"] else (), bool(name["ip_adapter"]), given if name["embeddings"] else None,
    )  # fmt: skip


def _numbers(values: Iterable[Any], dtype: type[np.generic]) -> NDArray[Any]:
    return np.array(list(values), dtype).reshape(-1, 1)


def _texts(values: Iterable[str]) -> NDArray[Any]:
    return np.array([value.encode() for value in values], object).reshape(-1, 1)


def _twice(array: NDArray[Any]) -> NDArray[Any]:
    return np.stack([array, array])
