"""TensorRT takes the graphs of every component and precision; `test_checkpoints` has denoisers with their options."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from diffusion_builder.stages import run as stages
from diffusion_builder.store import Kind, Store
from diffusion_contract.enums import Component
from diffusion_contract.tensors import interface
from tests.support.builder import parts
from tests.support.builder.repository import SHAPES, context
from tests.support.tensorrt import tensorrt_rtx
from tests.support.tensorrt.conformance import Workshop

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Case:
    """A graph: of which UNet, with which options; names among them stand for sources."""

    component: Component
    precision: str = "float32"
    unet: str = "sd1"
    options: dict[str, Any] = field(default_factory=dict)


CASES = {
    "vae encoder": Case(Component.VAE_ENCODER),
    "vae decoder, bfloat16": Case(Component.VAE_DECODER, "bfloat16"),
    "text encoder, half": Case(Component.TEXT_ENCODER, "float16"),
    "text encoder, long prompts": Case(
        Component.TEXT_ENCODER, "bfloat16", options={"clipSkip": 1, "longPrompts": True}
    ),
    "text encoder, weights of A1111": Case(
        Component.TEXT_ENCODER, "float16", options={"promptWeighting": "A1111", "longPrompts": True}
    ),
    "text encoder, weights of Compel": Case(Component.TEXT_ENCODER, "float16", options={"promptWeighting": "Compel"}),
    "image encoder": Case(Component.IMAGE_ENCODER, "float16", options={"ipAdapter": "adapter"}),
    "controlnet": Case(Component.CONTROLNET, "float16", options={"controlNet": "control"}),
    "denoiser, upcast attention": Case(Component.DENOISER, "bfloat16", "sd2"),
    "denoiser, deep features": Case(Component.DENOISER, "float16", options={"shallowLayers": 1}),
    "shallow denoiser": Case(Component.DENOISER_SHALLOW, "float16", options={"shallowLayers": 2}),
    "shallow denoiser without text": Case(
        Component.DENOISER_SHALLOW, "float16", "attention-everywhere", {"shallowLayers": 1}
    ),
    "unguided denoiser": Case(Component.DENOISER_UNGUIDED, "float16", options={"shallowLayers": 1}),
    "shallow unguided denoiser": Case(Component.DENOISER_SHALLOW_UNGUIDED, "float16", options={"shallowLayers": 2}),
    "no controlnet": Case(Component.ZERO_RESIDUALS),
    "safety checker": Case(Component.SAFETY_CHECKER, "float16"),
}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    folder = tmp_path_factory.mktemp("options")
    return Workshop(folder / "store", tensorrt_rtx.write_programs(folder / "programs"))


@pytest.fixture(scope="module")
def extras(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of the sources that options name."""
    store, scratch = Store(workshop.store), tmp_path_factory.mktemp("extras")
    adapter = {"ip_adapter": parts.ip_adapter(), "image_encoder": parts.image_encoder()}
    return {
        "adapter": parts.source(store, adapter, scratch / "adapter"),
        "control": parts.source(store, {"controlnet": parts.controlnet()}, scratch / "control"),
    }


def _checkpoint(workshop: Workshop, unet: str, scratch: Path) -> str:
    width = 40 if unet == "sd2" else 32
    writers = {"unet": parts.unet(unet), "vae": parts.vae(), "text_encoder": parts.text_encoder(width)}
    writers["safety_checker"] = parts.safety_checker()
    return parts.source(Store(workshop.store), writers, scratch / "checkpoint")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_option_in_every_precision_compiles(
    workshop: Workshop, extras: dict[str, str], case: Case, tmp_path: Path
) -> None:
    source = _checkpoint(workshop, case.unet, tmp_path)
    options = {name: extras.get(str(value), value) for name, value in case.options.items()}
    exported = stages.export(context(workshop.store), source, case.component, case.precision, json.dumps(options))
    result = workshop.compile_plan(str(exported["digest"]), SHAPES, "--layers")
    onnx = Store(workshop.store).get(Kind.ONNX, str(exported["digest"]))
    expected = interface(case.component, onnx.manifest.extra["facts"])
    bindings = json.loads((workshop.engine(result) / "layers.json").read_text())["Bindings"]
    assert sorted(bindings) == sorted(tensor.name for tensor in (*expected.inputs, *expected.outputs))
