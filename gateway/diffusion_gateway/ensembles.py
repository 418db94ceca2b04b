"""The ensembles of a pipeline, and which of them answers a request. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from diffusion_contract import python_models
from diffusion_contract.python_models import CONTROLNET, EMBEDDINGS, FEATURES, IP_ADAPTER, TASKS
from diffusion_gateway.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from diffusion_contract.tensors import DType

Quality = Literal["low", "medium", "high", "auto", "standard", "hd"]
CONDITIONER = python_models.CONDITIONER_NAME
_TIER = rf"(?P<task>{'|'.join(TASKS)}){{}}_(?P<steps>\d+)(?:_(?P<scheduler>[a-z0-9]+))?"
_TABLE = re.compile(python_models.table_of(_TIER.format("")).name)
_NAME = re.compile(_TIER.format("".join(f"(?P<{feature}>_{feature})?" for feature in FEATURES)) + "_pipeline")
_PREVIEW = python_models.preview(0).name.removesuffix("0")
# What a request can send to the gateway; embeddings of prompts are for clients of Triton.
_REQUEST_FEATURES = tuple(feature for feature in FEATURES if feature != EMBEDDINGS)
# What each feature is recognized by, for messages.
_FEATURE_FIELDS = {CONTROLNET: "control_image_<name>", IP_ADAPTER: "ip_adapter_image"}


@dataclass(frozen=True)
class Ensemble:
    """A tier as Triton describes it.

    Args:
        name: `<task>[_<feature>...]_<steps>[_<scheduler>]_pipeline`.
        task: `generate`, `img2img` or `inpaint`.
        features: of `python_models.FEATURES`.
        steps: number of denoising steps.
        scheduler: in its name; empty for the pipeline's default one and those that share its ensembles.
        inputs: name to element type.
        outputs: their names.
        max_batch: most images of one request.
    """

    name: str
    task: str
    features: frozenset[str]
    steps: int
    scheduler: str
    inputs: Mapping[str, DType]
    outputs: tuple[str, ...]
    max_batch: int

    @property
    def previews(self) -> tuple[int, ...]:
        """Denoiser calls after which it has a preview, ascending."""
        return tuple(sorted(int(name.removeprefix(_PREVIEW)) for name in self.outputs if name.startswith(_PREVIEW)))


def candidates(conditioner_outputs: Iterable[str]) -> Iterator[str]:
    """Names that the ensembles of a repository may have.

    The conditioner has one table for each task, step count and scheduler. Triton's index of the repository would name
    the ensembles themselves, but it is closed to clients where the operator serves.

    Args:
        conditioner_outputs: names of the conditioner's outputs.
    """
    subsets = [subset for size in range(3) for subset in combinations(_REQUEST_FEATURES, size)]
    for output in conditioner_outputs:
        table = _TABLE.fullmatch(output)
        if table is not None:
            tier = "_".join(filter(None, (table["steps"], table["scheduler"])))
            yield from (python_models.ensemble_name(table["task"], subset, tier) for subset in subsets)


def describe(name: str, inputs: Mapping[str, DType], outputs: Iterable[str], max_batch: int) -> Ensemble:
    """Read the name of an ensemble.

    Raises:
        ValueError: it is not the name of one.
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise ValueError(f"{name} is not the name of an ensemble")
    features = frozenset(feature for feature in FEATURES if parts[feature])
    return Ensemble(
        name, parts["task"], features, int(parts["steps"]), parts["scheduler"] or "", inputs, tuple(outputs), max_batch
    )


@dataclass(frozen=True)
class Selection:
    """What a request says about the ensemble that it needs.

    Args:
        task: `generate`, `img2img` or `inpaint`.
        features: of the request's images.
        steps: number of denoising steps; None where the quality decides.
        quality: of the request.
        scheduler: name of the noise scheduler; empty for the default one.
    """

    task: str
    features: frozenset[str] = frozenset()
    steps: int | None = None
    quality: Quality = "auto"
    scheduler: str = ""


@dataclass(frozen=True)
class Pipeline:
    """A model of the API: one DiffusionPipeline.

    Args:
        name: value of `model` in requests.
        ensembles: that its servers have.
        buckets: width and height of the only images that it makes, in pixels; empty where a range of sizes is served.
    """

    name: str
    ensembles: tuple[Ensemble, ...] = ()
    buckets: tuple[tuple[int, int], ...] = ()

    def check_size(self, size: tuple[int, int]) -> None:
        """Check a width and height in pixels.

        Raises:
            ApiError: the pipeline has buckets, and none of this size.
        """
        if self.buckets and size not in self.buckets:
            served = " or ".join(map(size_text, self.buckets))
            raise ApiError(f"size {size_text(size)} is not served by the model {self.name}: send {served}", "size")

    def select(self, selection: Selection) -> Ensemble:
        """The ensemble that answers a request.

        Raises:
            ApiError: the pipeline has none; the message lists what it has.
        """
        fitting = [
            item for item in self.ensembles if (item.task, item.features) == (selection.task, selection.features)
        ]
        if not fitting:
            raise self._no_task(selection)
        steps = self._steps(selection, sorted({item.steps for item in fitting}))
        by_scheduler = {item.scheduler: item for item in fitting if item.steps == steps}
        ensemble = by_scheduler.get(selection.scheduler) or by_scheduler.get("")
        if ensemble is None:
            names = ", ".join(sorted(by_scheduler))
            raise ApiError(f"the model {self.name} needs a scheduler for {steps} steps: send {names}", "scheduler")
        return ensemble

    def _steps(self, selection: Selection, served: list[int]) -> int:
        if selection.steps is None:
            return steps_of_quality(selection.quality, served)
        if selection.steps not in served:
            numbers = " or ".join(map(str, served))
            raise ApiError(
                f"{selection.steps} steps are not served by the model {self.name}: send {numbers}",
                "num_inference_steps",
            )
        return selection.steps

    def _no_task(self, selection: Selection) -> ApiError:
        served = ", ".join(sorted({_task_text(item.task, item.features) for item in self.ensembles}))
        params = {"img2img": "image", "inpaint": "mask"}
        needed = [_FEATURE_FIELDS[feature] for feature in sorted(selection.features)]
        return ApiError(
            f"the model {self.name} does not serve {_task_text(selection.task, selection.features)}: it serves "
            f"{served or 'nothing yet'}",
            needed[0] if needed else params.get(selection.task, "model"),
            code="unsupported_task",
        )


def size_text(size: tuple[int, int]) -> str:
    """Width and height as the API writes them."""
    return f"{size[0]}x{size[1]}"


def steps_of_quality(quality: Quality, served: list[int]) -> int:
    """The step count that a quality stands for.

    Args:
        quality: low is the smallest, high (or hd) the largest, any other the middle one, of two the larger.
        served: step counts, ascending.
    """
    if quality == "low":
        return served[0]
    return served[-1] if quality in {"high", "hd"} else served[len(served) // 2]


def _task_text(task: str, features: frozenset[str]) -> str:
    return f"{task} with {' and '.join(sorted(features))}" if features else task
