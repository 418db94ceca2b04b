"""Memory that a repository asks for grows with what is served."""

from __future__ import annotations

from dataclasses import replace

from diffusion_builder.repository.server_requirements import pool_bytes, vram_bytes
from diffusion_contract.spec import Shapes
from diffusion_contract.spec.engines import BatchRange, PixelRange
from diffusion_contract.tensors import Facts

_MIB = 1 << 20
FACTS = Facts.merge({"all": {"channels": 4, "pixels_per_latent": 8, "text_length": 77, "text_width": 768, "slots": 2}})


def _shapes(batch: int, side: int) -> Shapes:
    edge = PixelRange(min=side, opt=side, max=side)
    return Shapes(batch=BatchRange(min=1, opt=1, max=batch), height=edge, width=edge)


def test_pool_is_a_power_of_two_that_holds_two_batches_of_decoded_pictures() -> None:
    small, large = pool_bytes(FACTS, _shapes(1, 64)), pool_bytes(FACTS, _shapes(8, 1024))
    assert small == 64 * _MIB
    assert large > 2 * 8 * 1024 * 1024 * 3 * 4
    assert large // _MIB & (large // _MIB - 1) == 0


def test_more_state_needs_a_pool_that_is_not_smaller() -> None:
    many: Facts = replace(FACTS, slots=64)
    assert pool_bytes(many, _shapes(8, 1024)) >= pool_bytes(FACTS, _shapes(8, 1024))


def test_memory_counts_weights_batch_and_size_and_is_nothing_without_a_gpu() -> None:
    one, two = (vram_bytes("tensorrt", weights, FACTS, _shapes(1, 512)) for weights in (10, 20))
    assert two - one == 10
    assert vram_bytes("tensorrt", 10, FACTS, _shapes(8, 512)) > one
    assert vram_bytes("onnxruntime", 10, FACTS, _shapes(8, 512)) == 0
