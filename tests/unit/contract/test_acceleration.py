"""Which variant of the denoiser each call is, and which engines that takes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from diffusion_contract.assembly import AssembleSpec, assembly
from diffusion_contract.engines import engines
from diffusion_contract.enums import Component, Precision, Runtime
from diffusion_contract.spec import Acceleration, DiffusionPipelineSpec
from diffusion_contract.spec.acceleration import denoiser_variant
from tests.support.resource_parts import HUB

_LETTERS = {
    Component.DENOISER: "F", Component.DENOISER_SHALLOW: "s", Component.DENOISER_UNGUIDED: "U",
    Component.DENOISER_SHALLOW_UNGUIDED: "u",
}  # fmt: skip


def _spec(**fields: Any) -> DiffusionPipelineSpec:  # noqa: ANN401 - any field of the spec
    return DiffusionPipelineSpec.model_validate({"model": {"source": HUB}, "targets": [{"name": "cpu"}], **fields})


def _schedule(calls: int, acceleration: dict[str, Any] | None) -> str:
    accelerated = Acceleration.model_validate(acceleration) if acceleration is not None else None
    return "".join(_LETTERS[denoiser_variant(call, calls, accelerated)] for call in range(calls))


@pytest.mark.parametrize(
    ("calls", "acceleration", "expected"),
    [
        (5, None, "FFFFF"),
        (5, {}, "FFFFF"),
        (5, {"deepCache": {"interval": 2}}, "FsFsF"),
        (8, {"deepCache": {"interval": 3}}, "FssFssFs"),
        (8, {"deepCache": {"interval": 3, "branch": 2}}, "FssFssFs"),
        (12, {"deepCache": {"interval": 10}}, "FsssssssssFs"),
        (5, {"guidance": {"stop": 0.6}}, "FFFUU"),
        (6, {"guidance": {"stop": 0.6}}, "FFFUUU"),
        (20, {"guidance": {"stop": 0.95}}, "FFFFFFFFFFFFFFFFFFFU"),
        (8, {"guidance": {"stop": 0.5}, "deepCache": {"interval": 3}}, "FssFuuUu"),
        (7, {"guidance": {"stop": 0.5}, "deepCache": {"interval": 3}}, "FssUuuU"),
    ],
)
def test_every_call_has_its_variant(calls: int, acceleration: dict[str, Any] | None, expected: str) -> None:
    assert _schedule(calls, acceleration) == expected


def test_a_spec_without_acceleration_has_the_engines_that_it_always_had() -> None:
    without: list[dict[str, Any]] = [{}, {"acceleration": {}}]
    for fields in without:
        denoisers = [engine for engine in engines(_spec(**fields)) if "denoiser" in engine.name]
        assert [(engine.component, engine.settings) for engine in denoisers] == [(Component.DENOISER, ())]
    text = assembly(_spec(), Runtime.ONNXRUNTIME, "0" * 64, {engine.name: "1" * 64 for engine in engines(_spec())})
    assert "acceleration" not in text.document()


def test_variants_are_exported_from_one_source_with_one_precision_and_the_same_options() -> None:
    spec = _spec(
        model={"source": HUB, "loras": [{"source": HUB}], "ipAdapter": {"source": HUB}, "longPrompts": True},
        acceleration={"deepCache": {"interval": 3, "branch": 1}},
        componentPrecision={"denoiser": "float16"},
    )
    full, shallow = (engine for engine in engines(spec) if "denoiser" in engine.name)
    assert (full.name, shallow.name) == ("denoiser", "denoiser_shallow")
    assert shallow.precision is full.precision is Precision.FLOAT16
    assert (full.source, full.contents, full.addons) == (shallow.source, shallow.contents, shallow.addons)
    assert full.options(str) == shallow.options(str)
    assert full.options(str)["shallowLayers"] == 2


def test_unguided_variants_have_no_guidance_rescale_and_go_with_controlnets() -> None:
    spec = _spec(
        model={"source": HUB, "guidanceRescale": True, "controlNets": [{"name": "canny", "source": HUB}]},
        acceleration={"guidance": {"stop": 0.5}},
    )
    plain, unguided = (engine.options(str) for engine in engines(spec) if engine.name.startswith("denoiser"))
    assert plain == {**unguided, "guidanceRescale": True}
    assert unguided["controlNets"] == 1


def test_both_options_take_four_engines() -> None:
    spec = _spec(acceleration={"deepCache": {"interval": 2}, "guidance": {"stop": 0.5}})
    assert [engine.name for engine in engines(spec) if engine.name.startswith("denoiser")] == [
        "denoiser", "denoiser_shallow", "denoiser_unguided", "denoiser_shallow_unguided",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pipelines": [{"task": "generate", "steps": [3]}]}, "use more steps than that"),
        (
            {"pipelines": [{"task": "generate", "steps": [9]}], "acceleration": {"guidance": {"stop": 0.1}}},
            "guidance would stop before the first call",
        ),
        ({"controlNets": [{"name": "canny", "engine": "2" * 64}]}, "ControlNets have to change"),
    ],
)
def test_an_assembly_is_refused_as_its_spec_is(changes: dict[str, Any], says: str) -> None:
    spec = _spec(acceleration={"deepCache": {"interval": 3}})
    digests = {engine.name: "1" * 64 for engine in engines(spec)}
    document = assembly(spec, Runtime.ONNXRUNTIME, "0" * 64, digests).document()
    with pytest.raises(ValidationError, match=says):
        AssembleSpec.model_validate(document | changes)
