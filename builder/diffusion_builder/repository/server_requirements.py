"""Requirements of a repository on its server: flags, and an estimate of GPU memory. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusion_contract.enums import Component, Runtime
from diffusion_contract.tensors import MAX_STEPS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from diffusion_contract.model_facts import ModelFacts
    from diffusion_contract.spec import Shapes
    from diffusion_contract.spec.serving import Cuda

_MIB = 1 << 20
_FLOAT = 4
# Decoded image (float32), finished image (uint8) and as much again for the images that a request brings.
_PIXEL_BYTES = 2 * (3 * _FLOAT + 3)
# Latents of one sample besides state and noise: model input and output, image latent and noise, previews, masks.
_LATENTS = 8
# One batch is in the denoiser while the next one waits.
_BATCHES = 2
# Of engines whose build did not say it: activations per pixel of an image, of one optimization profile. Measured with
# TensorRT 10.6 on an H200 in float16, 512 x 512 pixels, batch 8, of Stable Diffusion 1.5: 5120 MiB of the VAE's decoder
# (ten maps of 128 channels), 1223 MiB of the denoiser, which guidance doubles (thirty maps of 320 channels at 1/64);
# a shallow one has the layers with the largest maps.
_ACTIVATION_BYTES: Mapping[Component, int] = {
    Component.VAE_DECODER: 2560,
    Component.PREVIEW_DECODER: 2560,
    Component.VAE_ENCODER: 2560,
    Component.DENOISER: 612,
    Component.DENOISER_SHALLOW: 612,
    Component.DENOISER_UNGUIDED: 306,
    Component.DENOISER_SHALLOW_UNGUIDED: 306,
    Component.REFINER: 612,
    Component.CONTROLNET: 306,
}
# Largest batch up to which every size is captured as a CUDA graph, and sizes of the others.
_EVERY_BATCH, _BATCH_STEP = 8, 4
# Of one captured graph of a thousand kernels, in both of the sets of events that Triton's backend turns between.
# Measured as above: 303 MiB more for 8 batch sizes of two profiles, the VAE's decoder and the text encoder.
_GRAPH_BYTES = 16 * _MIB
# What CUDA and Triton take before anything is loaded. With it the sum is 3 % below what Stable Diffusion 1.5 took on an
# H200, and 5 % above what the demo checkpoint did.
_CONTEXT_BYTES = 400 * _MIB


@dataclass(frozen=True)
class EngineMemory:
    """What is known of an engine's memory.

    Args:
        component: which one.
        plan: bytes of its files.
        profiles: how many optimization profiles it has.
        activations: bytes that a context of each profile allocates, as its build said; nothing where it did not.
        graphs: how many batch sizes each profile is captured for as a CUDA graph.
    """

    component: Component
    plan: int
    profiles: int = 1
    activations: tuple[int, ...] = ()
    graphs: int = 0


def graph_batches(smallest: int, largest: int) -> tuple[int, ...]:
    """Batch sizes that are captured as CUDA graphs: every one up to 8, beyond it every fourth and the largest."""
    sizes = range(smallest, largest + 1)
    return tuple(size for size in sizes if size <= _EVERY_BATCH or size % _BATCH_STEP == 0 or size == largest)


def server_flags(runtime: str, facts: ModelFacts, shapes: Shapes, cuda: Cuda | None = None) -> tuple[str, ...]:
    """Flags of tritonserver.

    Args:
        runtime: that the engines are for.
        facts: the checkpoint's numbers.
        shapes: the profile.
        cuda: how TensorRT's engines are launched.
    """
    # Without it the models of the denoising loop do not take turns, and batches are half as large (ADR 6).
    flags = ["--rate-limit=execution_count"]
    if runtime == Runtime.TENSORRT:
        flags.append(f"--cuda-memory-pool-byte-size=0:{pool_bytes(facts, shapes)}")
        if cuda and cuda.graphs:
            # Models that load at a time disturb each other's capture of CUDA graphs: it ended a server on an H200.
            flags.append("--model-load-thread-count=1")
    return tuple(flags)


def pool_bytes(facts: ModelFacts, shapes: Shapes) -> int:
    """GPU memory for the tensors between steps, in bytes: whole powers of two of MiB, at least 64 MiB.

    When the pool is used up, Triton keeps tensors in host memory, and every step copies them.
    """
    pixels = shapes.most_pixels
    latent = facts.channels * pixels // facts.pixels_per_latent**2 * _FLOAT
    text = 2 * max(1, facts.text_chunks) * facts.text_length * facts.text_width * _FLOAT
    # Those that are read, and those that the next full call makes meanwhile; of both prompts each.
    deep = 2 * 2 * facts.deep_channels * pixels // facts.pixels_per_latent**2 * _FLOAT
    sample = _PIXEL_BYTES * pixels + (facts.slots + _LATENTS + MAX_STEPS) * latent + text + deep
    needed = _BATCHES * shapes.batch.max * sample
    return max(64, 1 << (-(-needed // _MIB) - 1).bit_length()) * _MIB


def gpu_memory_bytes(runtime: str, engines: Iterable[EngineMemory], facts: ModelFacts, shapes: Shapes) -> int:
    """GPU memory of one server, in bytes; 0 without a GPU.

    The sum of: every engine's plan, which is about its weights; for each of its optimization profiles what an execution
    context allocates, since Triton keeps one context for each, and its CUDA graphs; the pool between steps; CUDA's own
    context.

    Args:
        runtime: that the engines are for.
        engines: all of the repository, each once.
        facts: the checkpoint's numbers.
        shapes: the profile.
    """
    if runtime != Runtime.TENSORRT:
        return 0
    return sum(_engine_bytes(engine, shapes) for engine in engines) + pool_bytes(facts, shapes) + _CONTEXT_BYTES


def _engine_bytes(engine: EngineMemory, shapes: Shapes) -> int:
    return engine.plan + _activations(engine, shapes) + engine.profiles * engine.graphs * _GRAPH_BYTES


def _activations(engine: EngineMemory, shapes: Shapes) -> int:
    if engine.activations:
        return sum(engine.activations)
    samples = shapes.most_pixels * shapes.batch.max
    return engine.profiles * _ACTIVATION_BYTES.get(engine.component, 0) * samples
