"""What a repository asks of the server that serves it: flags, and an estimate of GPU memory. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_contract.tensors import MAX_STEPS

if TYPE_CHECKING:
    from diffusion_contract.spec import Shapes
    from diffusion_contract.tensors import Facts

TENSORRT = "tensorrt"
_MIB = 1 << 20
_FLOAT = 4
# Decoded picture (float32), finished picture (uint8) and as much again for the pictures that a request brings.
_PIXEL_BYTES = 2 * (3 * _FLOAT + 3)
# Latents of one sample besides state and noise: model input and output, kept latents, previews, masks.
_LATENTS = 8
# One batch is in the denoiser while the next one waits.
_BATCHES = 2
# Live activations of UNets and VAEs of the size of Stable Diffusion, per pixel of a picture: three maps of 128 channels
# at full size in the VAE's decoder, and in the denoiser, doubled by guidance, a dozen of 320 channels at 1/64.
_ACTIVATION_BYTES = 3 * 128 * _FLOAT + 2 * 12 * 320 * _FLOAT // 64
# What CUDA and Triton take before anything is loaded.
_CONTEXT_BYTES = 512 * _MIB


def server_flags(runtime: str, facts: Facts, shapes: Shapes) -> tuple[str, ...]:
    """Flags of tritonserver.

    Args:
        runtime: that the engines are for.
        facts: the checkpoint's numbers.
        shapes: the profile.
    """
    # Without it the models of the denoising loop do not take turns, and batches are half as large (ADR 6).
    flags = ("--rate-limit=execution_count",)
    if runtime != TENSORRT:
        return flags
    return (*flags, f"--cuda-memory-pool-byte-size=0:{pool_bytes(facts, shapes)}")


def pool_bytes(facts: Facts, shapes: Shapes) -> int:
    """GPU memory for the tensors between steps, in bytes: whole powers of two of MiB, at least 64 MiB.

    When the pool is used up, Triton keeps tensors in host memory, and every step copies them.
    """
    pixels = shapes.height.max * shapes.width.max
    latent = facts.channels * pixels // facts.pixels_per_latent**2 * _FLOAT
    text = 2 * max(1, facts.text_chunks) * facts.text_length * facts.text_width * _FLOAT
    sample = _PIXEL_BYTES * pixels + (facts.slots + _LATENTS + MAX_STEPS) * latent + text
    needed = _BATCHES * shapes.batch.max * sample
    return max(64, 1 << (-(-needed // _MIB) - 1).bit_length()) * _MIB


def vram_bytes(runtime: str, weights: int, facts: Facts, shapes: Shapes) -> int:
    """Estimate of the GPU memory of one server, in bytes; 0 without a GPU.

    Args:
        runtime: that the engines are for.
        weights: bytes of all engines.
        facts: the checkpoint's numbers.
        shapes: the profile.
    """
    if runtime != TENSORRT:
        return 0
    activations = _ACTIVATION_BYTES * shapes.height.max * shapes.width.max * shapes.batch.max
    return weights + activations + pool_bytes(facts, shapes) + _CONTEXT_BYTES
