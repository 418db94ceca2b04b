"""Memory that a repository asks for grows with what is served."""

from __future__ import annotations

from dataclasses import replace

from diffusion_builder.repository.server_requirements import EngineMemory, gpu_memory_bytes, graph_batches, pool_bytes
from diffusion_contract.enums import Component
from diffusion_contract.model_facts import ModelFacts
from diffusion_contract.spec import Shapes
from diffusion_contract.spec.engines import BatchRange, PixelRange

_MIB = 1 << 20
FACTS = ModelFacts.merge(
    {"all": {"channels": 4, "pixels_per_latent": 8, "text_length": 77, "text_width": 768, "slots": 2}}
)


def _shapes(batch: int, side: int) -> Shapes:
    edge = PixelRange(min=side, opt=side, max=side)
    return Shapes(batch=BatchRange(min=1, opt=1, max=batch), height=edge, width=edge)


def test_pool_is_a_power_of_two_that_holds_two_batches_of_decoded_images() -> None:
    small, large = pool_bytes(FACTS, _shapes(1, 64)), pool_bytes(FACTS, _shapes(8, 1024))
    assert small == 64 * _MIB
    assert large > 2 * 8 * 1024 * 1024 * 3 * 4
    assert large // _MIB & (large // _MIB - 1) == 0


def test_more_state_needs_a_pool_that_is_not_smaller() -> None:
    many: ModelFacts = replace(FACTS, slots=64)
    assert pool_bytes(many, _shapes(8, 1024)) >= pool_bytes(FACTS, _shapes(8, 1024))


def test_memory_is_plans_contexts_of_every_profile_and_the_pool() -> None:
    shapes = _shapes(8, 512)
    denoiser = EngineMemory(Component.DENOISER, 1690 * _MIB, 2, (1167 * _MIB, 1223 * _MIB))
    decoder = EngineMemory(Component.VAE_DECODER, 110 * _MIB, 1, (5120 * _MIB,))
    both = gpu_memory_bytes("tensorrt", [denoiser, decoder], FACTS, shapes)
    assert both - gpu_memory_bytes("tensorrt", [], FACTS, shapes) == (1690 + 1167 + 1223 + 110 + 5120) * _MIB
    assert gpu_memory_bytes("tensorrt", [], FACTS, shapes) > pool_bytes(FACTS, shapes)
    assert gpu_memory_bytes("onnxruntime", [denoiser, decoder], FACTS, shapes) == 0


def test_memory_of_engines_whose_build_did_not_say_it_is_as_measured_and_grows_with_the_pixels() -> None:
    def activations(component: Component, shapes: Shapes, profiles: int = 1) -> int:
        engine = EngineMemory(component, 0, profiles)
        return gpu_memory_bytes("tensorrt", [engine], FACTS, shapes) - gpu_memory_bytes("tensorrt", [], FACTS, shapes)

    measured = _shapes(8, 512)
    assert activations(Component.VAE_DECODER, measured) == 5120 * _MIB
    assert abs(activations(Component.DENOISER, measured) - 1223 * _MIB) < 2 * _MIB
    assert activations(Component.DENOISER, measured, 2) == 2 * activations(Component.DENOISER, measured)
    assert activations(Component.DENOISER, _shapes(8, 1024)) == 4 * activations(Component.DENOISER, measured)
    assert activations(Component.SCHEDULER_STEP, measured) == 0


def test_few_of_many_batch_sizes_are_captured_as_graphs() -> None:
    assert graph_batches(1, 4) == (1, 2, 3, 4)
    assert graph_batches(2, 18) == (2, 3, 4, 5, 6, 7, 8, 12, 16, 18)
