"""Whether a GPU has the memory that a server should need; pure."""

import re
from collections.abc import Mapping
from types import MappingProxyType

GIB = 2**30
MIB = 2**20

GPU_MEMORY_MIB: Mapping[str, int] = MappingProxyType(
    {
        "NVIDIA-A2": 15356,
        "NVIDIA-A10": 23028,
        "NVIDIA-A10G": 23028,
        "NVIDIA-A16": 15356,
        "NVIDIA-A30": 24576,
        "NVIDIA-A40": 46068,
        "NVIDIA-B200": 183359,
        "NVIDIA-GeForce-RTX-3090": 24576,
        "NVIDIA-GeForce-RTX-4090": 24564,
        "NVIDIA-GeForce-RTX-5090": 32607,
        "NVIDIA-H100-NVL": 95830,
        "NVIDIA-H100-PCIe": 81559,
        "NVIDIA-H200": 143771,
        "NVIDIA-H200-NVL": 143771,
        "NVIDIA-L4": 23034,
        "NVIDIA-L40": 46068,
        "NVIDIA-L40S": 46068,
        "NVIDIA-RTX-6000-Ada-Generation": 49140,
        "NVIDIA-RTX-A5000": 24564,
        "NVIDIA-RTX-A6000": 49140,
        "Tesla-P4": 7680,
        "Tesla-T4": 15360,
    }
)
"""MiB, about as nvidia-smi shows it, of products whose name does not say it. What is unknown is not judged."""
MEMORY_IN_SLICE = re.compile(r"-MIG-\d+g\.(\d+)gb")
MEMORY_IN_NAME = re.compile(r"-(\d+)GB(?:-|$)", re.IGNORECASE)
TIME_SLICED_SUFFIX = "-SHARED"
"""What GPU feature discovery adds to the name of a GPU that several pods take turns on."""
USABLE_FRACTION = 0.95
"""Of what a name says: a slice 1g.10gb has 9.5 GiB."""


def memory_bytes(sku: str) -> int | None:
    """Memory of one GPU or MIG slice, bytes; None where neither its name nor the table tells."""
    mebibytes = GPU_MEMORY_MIB.get(sku.removesuffix(TIME_SLICED_SUFFIX))
    if mebibytes is not None:
        return mebibytes * MIB
    match = MEMORY_IN_SLICE.search(sku) or MEMORY_IN_NAME.search(sku)
    # Of a slice without its size in the name, the product's size says nothing.
    if match is None or ("-MIG-" in sku and "g." not in sku):
        return None
    return int(int(match[1]) * USABLE_FRACTION * GIB)


def memory_warning(sku: str, required_bytes: int | None) -> str | None:
    """Warning that the server may need more than the GPU has; None when it fits, or the memory is unknown.

    Args:
        sku: GPU product.
        required_bytes: estimate of the builder.
    """
    available = memory_bytes(sku)
    if required_bytes is None or available is None or required_bytes <= available:
        return None
    return (
        f"A server should need about {required_bytes / GIB:.1f} GiB of GPU memory, and {sku} has "
        f"{available / GIB:.1f}: take a larger GPU or slice, smaller shapes (batch.max, height.max, width.max) or "
        "precision float16. This is an estimate; serving is tried all the same."
    )
