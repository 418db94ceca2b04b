"""Every task with every scheduler draws what diffusers' pipeline for it draws; the schedulers share one request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import diffusers
import numpy as np
import pytest
import torch
from tritonclient.utils import InferenceServerException

from diffusion_builder.models.schedule import SchedulerType
from diffusion_builder.models.schedule.classes import EDM
from diffusion_builder.stages import run as stages
from tests.support.builder.parts import one_thread
from tests.support.builder.repository import SHAPES, build_repository, context
from tests.support.triton.client import answer, psnr, tensor
from tests.support.triton.tritonserver import Server, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.support.triton.client import Pixels

_MIN_PSNR = 35.0
_threads = pytest.fixture(autouse=True, scope="module")(one_thread)
_TASKS = ("generate", "img2img", "inpaint")
_STEPS = (4, 20)
_STRENGTH = 0.6
_SEPARATE_TYPES = (SchedulerType.HEUN, SchedulerType.PNDM)
# The checkpoint is not in the formulation of EDM.
_COMBINED_TYPES = tuple(type_ for type_ in SchedulerType if type_ not in (*_SEPARATE_TYPES, *EDM))
# A second one of a type has a name of its own.
_KARRAS = {"type": "DPMSolverMultistep", "name": "karras", "useKarrasSigmas": True}
_ETA = {SchedulerType.DDIM: 0.5}
_PROMPT = "a red circle on a blue background"
_ROWS, _COLUMNS = np.mgrid[:64, :64] / 63
_IMAGE = (np.stack([_ROWS, _COLUMNS, np.sin(6 * _ROWS) ** 2], axis=-1) * 255).astype(np.uint8)
_MASK = (np.hypot(_ROWS - 0.4, _COLUMNS - 0.6) < 0.3).astype(np.uint8) * 255
_PIPELINES = {
    "generate": "StableDiffusionPipeline",
    "img2img": "StableDiffusionImg2ImgPipeline",
    "inpaint": "StableDiffusionInpaintPipeline",
}


@dataclass(frozen=True)
class Case:
    """What is drawn, with as many schedulers as there are samples."""

    task: str
    steps: int
    types: Sequence[SchedulerType]
    strength: float = _STRENGTH
    suffix: str = ""
    karras: bool = False

    @property
    def ensemble(self) -> str:
        return f"{self.task}_{self.steps}{self.suffix}_pipeline"

    @property
    def seeds(self) -> Sequence[int]:
        return range(11, 11 + len(self.types))


@pytest.fixture(scope="module")
def server(store: Path, checkpoint: Path) -> Iterator[Server]:
    """Triton with all tasks, tiers and schedulers."""
    pipelines = [{"task": task, "steps": _STEPS} for task in _TASKS]
    results = build_repository(store, checkpoint, pipelines=pipelines)
    engines = {str(result["component"]): result["digest"] for result in results if result["stage"] == "compile"}
    spec = {
        "source": results[0]["digest"], "engines": engines, "shapes": json.loads(SHAPES), "pipelines": pipelines,
        "schedulers": [{"type": str(type_)} for type_ in (*_COMBINED_TYPES, *_SEPARATE_TYPES)] + [_KARRAS],
    }  # fmt: skip
    assembled = stages.assemble(context(store), json.dumps(spec))
    with serve(store / "repositories" / str(assembled["digest"]) / "models") as running:
        yield running


class Reference:
    """diffusers' pipelines on the same weights, in float32 on the CPU."""

    def __init__(self, checkpoint: Path) -> None:
        library: Any = diffusers.StableDiffusionPipeline
        self._loaded = library.from_pretrained(checkpoint, dtype=torch.float32, local_files_only=True)
        self._config = self._loaded.scheduler.config

    def draw(self, case: Case, index: int) -> Pixels:
        """The image [H, W, 3] of one sample."""
        type_ = case.types[index]
        kind = getattr(diffusers, f"{type_}DiscreteScheduler", None) or getattr(diffusers, f"{type_}Scheduler")
        changes = {"skip_prk_steps": True} if type_ is SchedulerType.PNDM else {}
        if case.karras:
            changes = {"use_karras_sigmas": True}
        parts = {**self._loaded.components, "scheduler": kind.from_config(self._config, **changes)}
        pipeline = getattr(diffusers, _PIPELINES[case.task])(**parts)
        pipeline.set_progress_bar_config(disable=True)
        total, arguments = case.steps, {}
        if case.task != "generate":
            total = next(count for count in range(total, 1000) if int(count * case.strength) == total)
            arguments = {"image": diffusers.utils.numpy_to_pil(_IMAGE[None] / 255.0)[0], "strength": case.strength}
        if case.task == "inpaint":
            arguments["mask_image"] = diffusers.utils.numpy_to_pil(_MASK[None, ..., None] / 255.0)[0]
        generator = torch.Generator().manual_seed(case.seeds[index])
        extra = {"eta": _ETA.get(type_, 0.0), "guidance_scale": 5.0, "generator": generator}
        size = {"height": 64, "width": 64} if case.task != "img2img" else {}
        return np.asarray(pipeline(_PROMPT, num_inference_steps=total, **arguments, **extra, **size).images[0])


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Reference:
    return Reference(checkpoint)


def _inputs(case: Case) -> list[Any]:
    batch = len(case.types)
    columns: Mapping[str, tuple[str, Sequence[object]]] = {
        "prompt": ("BYTES", [_PROMPT.encode()] * batch),
        "scheduler": ("BYTES", [b"karras" if case.karras else type_.encode() for type_ in case.types]),
        "seed": ("INT64", case.seeds),
        "guidance_scale": ("FP32", [5.0] * batch),
        "eta": ("FP32", [_ETA.get(type_, 0.0) for type_ in case.types]),
    }
    if case.task != "generate":
        columns = {**columns, "strength": ("FP32", [case.strength] * batch)}
    kinds = {"BYTES": object, "INT64": np.int64, "FP32": np.float32}
    tensors = [
        tensor(name, kind, np.array(values, kinds[kind]).reshape(-1, 1)) for name, (kind, values) in columns.items()
    ]
    if case.task != "generate":
        tensors.append(tensor("input_image", "UINT8", np.repeat(_IMAGE[None], batch, axis=0)))
    if case.task == "inpaint":
        tensors.append(tensor("mask", "UINT8", np.repeat(_MASK[None], batch, axis=0)))
    return tensors


class Comparison:
    """Asks the server, and compares with diffusers; what was found goes into the report of the run."""

    def __init__(self, server: Server, reference: Reference, report: Callable[[str, object], None]) -> None:
        self._server, self._reference, self._report = server, reference, report

    def __call__(self, case: Case) -> None:
        images = np.asarray(answer(self._server.http, case.ensemble, _inputs(case), ["image"]).as_numpy("image"))
        for index, type_ in enumerate(case.types):
            image_psnr = psnr(images[index], self._reference.draw(case, index))
            name = "karras" if case.karras else str(type_)
            self._report(f"{case.task} {case.steps} {case.strength} {name}", round(image_psnr, 1))
            assert image_psnr >= _MIN_PSNR, name


@pytest.fixture
def compare(
    server: Server, reference: Reference, record_property: Callable[[str, object], None]
) -> Callable[[Case], None]:
    return Comparison(server, reference, record_property)


@pytest.mark.parametrize("task", _TASKS)
@pytest.mark.parametrize("steps", _STEPS)
@pytest.mark.parametrize("types", [_COMBINED_TYPES[::2], _COMBINED_TYPES[1::2]], ids=["even", "odd"])
def test_schedulers_of_one_request_draw_what_diffusers_draws(
    compare: Callable[[Case], None], task: str, steps: int, types: Sequence[SchedulerType]
) -> None:
    compare(Case(task, steps, types))


@pytest.mark.parametrize("task", _TASKS)
@pytest.mark.parametrize("steps", _STEPS)
@pytest.mark.parametrize("type_", _SEPARATE_TYPES)
def test_schedulers_with_other_calls_have_ensembles_of_their_own(
    compare: Callable[[Case], None], task: str, steps: int, type_: SchedulerType
) -> None:
    compare(Case(task, steps, [type_], suffix=f"_{type_.lower()}"))


@pytest.mark.parametrize("task", _TASKS)
def test_one_type_may_be_listed_twice_under_two_names(compare: Callable[[Case], None], task: str) -> None:
    compare(Case(task, 4, [SchedulerType.DPM_SOLVER_MULTISTEP], karras=True))


@pytest.mark.parametrize("task", ["img2img", "inpaint"])
def test_strength_1_starts_where_diffusers_does(compare: Callable[[Case], None], task: str) -> None:
    # inpaint: from noise alone; img2img: from the image under all of the noise.
    compare(Case(task, 4, [SchedulerType.DDIM, SchedulerType.EULER_ANCESTRAL], strength=1.0))


@pytest.mark.parametrize(
    ("ensemble", "scheduler", "says"),
    [
        ("generate_4_pipeline", "Heun", "send the request to generate_4_heun_pipeline"),
        ("inpaint_20_pipeline", "PNDM", "send the request to inpaint_20_pndm_pipeline"),
        ("generate_4_heun_pipeline", "DDIM", "send the request to generate_4_pipeline"),
        ("generate_4_pipeline", "Magic", "scheduler 'magic' is not supported: send ddim or"),
    ],
)
def test_a_scheduler_of_another_ensemble_is_rejected_with_its_name(
    server: Server, ensemble: str, scheduler: str, says: str
) -> None:
    task = ensemble.split("_", maxsplit=1)[0]
    tensors = [one for one in _inputs(Case(task, 4, [SchedulerType.DDIM])) if one.name() not in {"scheduler", "eta"}]
    tensors.append(tensor("scheduler", "BYTES", np.array([[scheduler.encode()]], object)))
    with pytest.raises(InferenceServerException, match=says):
        answer(server.http, ensemble, tensors)
