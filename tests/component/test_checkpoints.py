"""Checkpoints of all shapes, with everything that applies to each, go the whole way to engines of both runtimes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from diffusion_builder.graphs import deviation
from diffusion_builder.stages import run as stages
from diffusion_builder.store import Kind, Store
from diffusion_contract.enums import Component, Precision
from diffusion_contract.exports import APPLIES
from diffusion_contract.tensors import interface
from tests.support.builder import parts
from tests.support.builder.repository import SHAPES, context
from tests.support.builder.shapes import SHAPES_OF, Shape, lora
from tests.support.tensorrt import tensorrt_rtx
from tests.support.tensorrt.conformance import EVERYTHING, Workshop

_one_thread = pytest.fixture(scope="module", autouse=True)(parts.one_thread)


@dataclass(frozen=True)
class Bench:
    """A store with one checkpoint and its additions.

    Args:
        workshop: where its graphs and engines are.
        shape: of the checkpoint.
        source: its digest.
        extras: digests of the sources that options name.
    """

    workshop: Workshop
    shape: Shape
    source: str
    extras: dict[str, str]

    @property
    def store(self) -> Store:
        """Where everything is."""
        return Store(self.workshop.store)

    def options(self, component: Component) -> dict[str, Any]:
        """Everything that this component of this checkpoint can have."""
        lora = [{"source": self.extras["lora"], "weight": 0.01}]
        long = {} if self.shape.is_xl else {"longPrompts": True}
        options: dict[Component, dict[str, Any]] = {
            Component.TEXT_ENCODER: {"clipSkip": 1, **long, "loras": lora},
            Component.TEXT_ENCODER_2: {"clipSkip": 1, "loras": lora, "refiner": self.shape.refiner},
            Component.REFINER: {"guidanceRescale": True, "shapeSources": [self.source]},
            Component.DENOISER: {"guidanceRescale": True, **long, "loras": lora},
            Component.CONTROLNET: {"controlNet": self.extras.get("controlnet"), **long},
        }
        component_options = options.get(component, {})
        if self.shape.adapter and component in (Component.DENOISER, Component.IMAGE_ENCODER):
            component_options = {**component_options, "ipAdapter": self.extras["adapter"]}
            component_options |= {"imageEncoder": self.extras["image_encoder"]} if self.shape.plus else {}
        if self.shape.control and component is Component.DENOISER:
            component_options["controlNets"] = 2
        is_of_family = component in APPLIES["family"] and self.shape.is_xl
        return {**component_options, **({"family": str(self.shape.family)} if is_of_family else {})}

    def export(self, component: Component, precision: str) -> stages.Result:
        """Export with everything; what is there already is taken."""
        options = json.dumps(self.options(component))
        source = self.extras["refiner"] if component is Component.REFINER else self.source
        return stages.export(context(self.workshop.store), source, component, precision, options)


@pytest.fixture(scope="module", params=tuple(SHAPES_OF.values()), ids=tuple(SHAPES_OF))
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One checkpoint after the other; tests of one run together and share what is exported."""
    shape: Shape = request.param
    folder = tmp_path_factory.mktemp("checkpoint")
    store = Store(folder / "store")
    base = {
        "unet": parts.unet(shape.unet),
        "text_encoder": parts.text_encoder(32 if shape.is_xl else shape.text_width),
        "vae": parts.vae(shape.latent, shape.levels),
        **({"text_encoder_2": parts.text_encoder_2()} if shape.is_xl else {}),
    }
    writers_by_source: dict[str, dict[str, parts.Write]] = {"lora": {"lora": lora(shape)}}
    if shape.control:
        writers_by_source["controlnet"] = {"controlnet": parts.controlnet(shape.control, levels=shape.levels)}
    if shape.refiner:
        writers_by_source["refiner"] = {"unet": parts.unet("sdxl-refiner")}
    if shape.adapter:
        adapter = parts.ip_adapter(shape.unet, plus=shape.plus)
        encoder = {"image_encoder": parts.image_encoder()}
        # Beside the adapter, or in a source of its own.
        writers_by_source["adapter"] = {"ip_adapter": adapter} | ({} if shape.plus else encoder)
        if shape.plus:
            writers_by_source["image_encoder"] = encoder
    return Bench(
        Workshop(store.root, tensorrt_rtx.write_programs(folder / "programs")),
        shape,
        parts.source(store, base, folder / "base", f"{shape.family}Pipeline"),
        {name: parts.source(store, writers, folder / name, "") for name, writers in writers_by_source.items()},
    )


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_every_component_agrees_with_torch_and_compiles_for_the_cpu(bench: Bench, precision: str) -> None:
    for component in bench.shape.components:
        exported = bench.export(component, precision)
        assert exported["maxRelativeError"] <= deviation.TOLERANCES[Precision(exported["precision"])], component
        request = stages.CompileArguments(str(exported["digest"]), "onnxruntime", "cpu", SHAPES)
        assert stages.compile_(context(bench.workshop.store), request)["component"] == component


def test_tensorrt_takes_what_is_particular_to_the_checkpoint(bench: Bench) -> None:
    """The whole of it with `make test-conformance`: what checkpoints share is compiled once in another test."""
    for component in bench.shape.components if EVERYTHING else bench.shape.particular:
        exported = bench.export(component, "float16")
        result = bench.workshop.compile_plan(str(exported["digest"]), SHAPES, "--layers")
        facts = bench.store.get(Kind.ONNX, str(exported["digest"])).manifest.extra["facts"]
        expected = interface(component, facts)
        bindings = json.loads((bench.workshop.engine(result) / "layers.json").read_text())["Bindings"]
        assert sorted(bindings) == sorted(tensor.name for tensor in (*expected.inputs, *expected.outputs))
