"""Memory that a Job of the build needs, by the size of what it reads; pure.

A Job gets it as its request, unless `spec.engines.resources` names memory itself. The numbers are measurements with
Stable Diffusion 1.5's size (docs/sizing.md), rounded up; those of parity are an estimate.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from diffusion_contract.enums import Component
from diffusion_contract.resources import Resources
from diffusion_contract.subfolders import WEIGHTS
from diffusion_operator.plan.build_steps import BuildStep

MEBIBYTE, GIBIBYTE = 2**20, 2**30
LEAST_BYTES = 2 * GIBIBYTE
"""Of small models, and where the sizes are not known."""
_STEP = 512 * MEBIBYTE


@dataclass(frozen=True)
class JobPeak:
    """Peak memory of a kind of Job.

    Attributes:
        libraries: bytes that its libraries take before anything is loaded.
        per_weight_byte: bytes over that for each byte of weights that it reads.
    """

    libraries: int
    per_weight_byte: float

    def needed_bytes(self, weight_bytes: int | None) -> int:
        """Bytes of memory, in steps of 512 MiB; at least 2 GiB, also where the weights' size is not known."""
        if weight_bytes is None:
            return LEAST_BYTES
        peak = self.libraries + int(self.per_weight_byte * weight_bytes)
        return max(LEAST_BYTES, -(-peak // _STEP) * _STEP)


EXPORT = JobPeak(GIBIBYTE * 3 // 2, 3.0)
"""Of the denoiser in half precision 5.4 GiB were measured, of the text encoder 1.8, of the VAE's decoder 1.3."""
COMPILE = JobPeak(GIBIBYTE, 3.0)
"""By ONNX Runtime."""
COMPILE_TENSORRT = JobPeak(7 * GIBIBYTE, 1.5)
"""By trtexec: 6.0 GiB were measured of the smallest engine, 9.0 of the denoiser."""
PARITY = JobPeak(GIBIBYTE, 5.0)
"""All engines and all models in float32 at once."""


def with_memory(resources: Resources, needed_bytes: int) -> Resources:
    """The resources with a request for memory, if they name neither a request nor a limit.

    Args:
        resources: of `spec.engines`.
        needed_bytes: of memory.
    """
    if "memory" in {**(resources.requests or {}), **(resources.limits or {})}:
        return resources
    memory = {"memory": f"{needed_bytes // MEBIBYTE}Mi"}
    return Resources(requests={**(resources.requests or {}), **memory}, limits=resources.limits)


def component_bytes(component: Component, source: BuildStep) -> int | None:
    """Bytes of a component's weights in its source; None when the source's fetch did not say them."""
    sizes = source.result.get("weightBytes")
    return None if sizes is None else int(sizes.get(WEIGHTS.get(component), 0))


def source_bytes(steps: Iterable[BuildStep]) -> int | None:
    """Bytes of all weights of sources; None when a source's fetch did not say them."""
    sizes = [step.result.get("weightBytes") for step in steps]
    if any(size is None for size in sizes):
        return None
    return sum(sum(size.values()) for size in sizes if size is not None)
