"""A plan is compared with the contract: names, element types, open batch, and the profiles that were asked for."""

from __future__ import annotations

import sys
from dataclasses import replace
from enum import Enum
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar

import pytest

from diffusion_builder.engines.tensorrt.plan_check import PlanTensor, TensorRTPlan, check, differences, read
from diffusion_builder.engines.tensorrt.profiles import optimization_profiles
from diffusion_builder.errors import BadInputError
from diffusion_contract.enums import Component
from diffusion_contract.spec import Shapes
from diffusion_contract.spec.engines import BatchRange, PixelRange
from diffusion_contract.tensors import ENGINE_INTERFACES

if TYPE_CHECKING:
    from pathlib import Path

SIDE = PixelRange(min=64, opt=64, max=128)
SHAPES = Shapes(batch=BatchRange(min=1, opt=4, max=8), height=SIDE, width=SIDE)
FACTS = {"channels": 4, "pixels_per_latent": 8, "text_length": 77, "text_width": 768}
PROFILES = optimization_profiles(Component.DENOISER, FACTS, SHAPES)
INTERFACE = ENGINE_INTERFACES[Component.DENOISER]
LATENT = (-1, 4, -1, -1)
GOOD = TensorRTPlan(
    inputs=(
        PlanTensor("model_input", "FLOAT", LATENT),
        PlanTensor("timestep", "FLOAT", (-1, 1)),
        PlanTensor("text_embeddings", "FLOAT", (-1, 2, 77, 768)),
        PlanTensor("guidance", "FLOAT", (-1, 1)),
    ),
    outputs=(PlanTensor("model_output", "FLOAT", LATENT),),
    profiles=PROFILES,
)


def problems_of(plan: TensorRTPlan) -> list[str]:
    return list(differences(plan, INTERFACE, PROFILES))


def test_the_plan_that_was_asked_for_passes() -> None:
    check(GOOD, "denoiser", INTERFACE, PROFILES)


def test_the_order_of_inputs_does_not_matter() -> None:
    assert problems_of(replace(GOOD, inputs=GOOD.inputs[::-1], profiles=tuple(item[::-1] for item in PROFILES))) == []


def test_a_missing_and_an_unexpected_tensor_are_named() -> None:
    renamed = replace(GOOD, outputs=(PlanTensor("sample", "FLOAT", LATENT),))
    assert problems_of(renamed) == ["unexpected output sample", "no output model_output"]


def test_a_changed_type_is_named() -> None:
    half = replace(GOOD, outputs=(PlanTensor("model_output", "HALF", LATENT),))
    assert problems_of(half) == ["output model_output is HALF instead of FLOAT"]


@pytest.mark.parametrize("dims", [(1, 4, -1, -1), (-1, 4, -1)], ids=["closed batch", "rank"])
def test_changed_dimensions_are_named(dims: tuple[int, ...]) -> None:
    (problem,) = problems_of(replace(GOOD, outputs=(PlanTensor("model_output", "FLOAT", dims),)))
    assert problem.startswith(f"output model_output has dimensions {dims}")


def test_a_shape_that_was_overridden_is_named() -> None:
    first = PROFILES[0]
    changed = tuple(replace(item, max=(1, 1)) if item.name == "guidance" else item for item in first)
    assert problems_of(replace(GOOD, profiles=(changed, PROFILES[1]))) == [
        "profile 0 of guidance is 1x1 / 1x1 / 1x1 instead of 1x1 / 1x1 / 8x1"
    ]


def test_a_lost_profile_is_named() -> None:
    assert problems_of(replace(GOOD, profiles=PROFILES[:1])) == ["1 optimization profiles instead of 2"]


def test_all_differences_are_in_one_error() -> None:
    wrong = replace(GOOD, outputs=(), profiles=PROFILES[:1])
    with pytest.raises(BadInputError, match="no output model_output; 1 optimization profiles instead of 2"):
        check(wrong, "denoiser", INTERFACE, PROFILES)


def test_without_the_package_nothing_is_read(tmp_path: Path) -> None:
    assert read(tmp_path / "model.plan", "no_such_tensorrt") is None


class _Mode(Enum):
    INPUT = 1
    OUTPUT = 2


class _Type(Enum):
    FLOAT = 1


class _Engine:
    """As `tensorrt.ICudaEngine`, for the good plan."""

    num_io_tensors = 5
    num_optimization_profiles = 2
    _tensors: ClassVar[tuple[PlanTensor, ...]] = (*GOOD.inputs, *GOOD.outputs)

    def get_tensor_name(self, index: int) -> str:
        return self._tensors[index].name

    def get_tensor_mode(self, name: str) -> _Mode:
        return _Mode.OUTPUT if name == "model_output" else _Mode.INPUT

    def get_tensor_dtype(self, _name: str) -> _Type:
        return _Type.FLOAT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return next(tensor.dims for tensor in self._tensors if tensor.name == name)

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        item = next(item for item in PROFILES[index] if item.name == name)
        return [item.min, item.opt, item.max]


class _Logger:
    ERROR = 1

    def __init__(self, _severity: int) -> None:
        pass


class _Runtime:
    def __init__(self, _logger: _Logger) -> None:
        pass

    def deserialize_cuda_engine(self, content: bytes) -> _Engine | None:
        return _Engine() if content == b"plan" else None


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> str:
    module = ModuleType("fake_tensorrt")
    names = {"Logger": _Logger, "Runtime": _Runtime, "TensorIOMode": _Mode, "__version__": "10.13.3"}
    for name, value in names.items():
        setattr(module, name, value)
    monkeypatch.setitem(sys.modules, "fake_tensorrt", module)
    return "fake_tensorrt"


def test_a_plan_is_read_through_tensorrt(tmp_path: Path, tensorrt: str) -> None:
    path = tmp_path / "model.plan"
    path.write_bytes(b"plan")
    assert read(path, tensorrt) == GOOD


def test_a_plan_that_tensorrt_rejects_names_both_versions_as_the_problem(tmp_path: Path, tensorrt: str) -> None:
    path = tmp_path / "model.plan"
    path.write_bytes(b"of another version")
    with pytest.raises(BadInputError, match=r"TensorRT 10\.13\.3 cannot load"):
        read(path, tensorrt)
