"""Memory that a Job of the build needs, by the size of what it reads; pure.

A Job gets it as its request, unless `spec.engines.resources` names memory itself. The factors are of measurements with
Stable Diffusion 1.5's size (docs/sizing.md), rounded up.
"""

from collections.abc import Iterable

from diffusion_contract.enums import Component
from diffusion_contract.resources import Resources
from diffusion_contract.subfolders import WEIGHTS
from diffusion_operator.plan.build_steps import BuildStep

MEBIBYTE = 2**20
LEAST_BYTES = 2 * 2**30
"""Of small models, and where the sizes are not known."""
LIBRARIES_BYTES = 2**30
"""What torch, ONNX Runtime or TensorRT take before anything is loaded."""
BYTES_PER_WEIGHT_BYTE = {"export": 4.0, "compile": 4.0, "parity": 5.0}
"""Peak of a stage over the libraries, by the bytes of the weights that it reads."""
_STEP = 512 * MEBIBYTE


def with_memory(resources: Resources, stage: str, weight_bytes: int | None) -> Resources:
    """The resources with a request for memory, if they name neither a request nor a limit.

    Args:
        resources: of `spec.engines`.
        stage: of the builder.
        weight_bytes: of the weights, or the graph, that the Job reads; None when they are not known.
    """
    if "memory" in {**(resources.requests or {}), **(resources.limits or {})}:
        return resources
    memory = {"memory": f"{needed_bytes(stage, weight_bytes) // MEBIBYTE}Mi"}
    return Resources(requests={**(resources.requests or {}), **memory}, limits=resources.limits)


def needed_bytes(stage: str, weight_bytes: int | None) -> int:
    """Bytes of memory, in steps of 512 MiB."""
    if weight_bytes is None:
        return LEAST_BYTES
    peak = LIBRARIES_BYTES + int(BYTES_PER_WEIGHT_BYTE[stage] * weight_bytes)
    return max(LEAST_BYTES, -(-peak // _STEP) * _STEP)


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
