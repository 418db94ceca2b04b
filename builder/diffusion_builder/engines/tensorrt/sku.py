"""Names of GPUs: the output of nvidia-smi → the node label `nvidia.com/gpu.product`.

The rule is that of `diffusion_contract.skus`; time slicing adds `-SHARED`.
"""

from __future__ import annotations

import re

from diffusion_builder.errors import BadInputError, Reason, UnavailableError
from diffusion_contract.skus import CPU, LABEL_VALUE_PATTERN, product_label

_GPU = re.compile(r"^GPU \d+: (?P<name>.+?) \(UUID: ")
_SLICE = re.compile(r"^\s+MIG (?P<profile>\S+)\s+Device\s+\d+:")
_MAX_LABEL = 63
# Sharing in time does not change which kernels are fastest.
_SHARED = "-SHARED"


def validate_product(target: str) -> str:
    """Check that the target can be a GPU product; returns it.

    Raises:
        BadInputError: it cannot be the value of a label.
    """
    if re.fullmatch(LABEL_VALUE_PATTERN, target) is None or len(target) > _MAX_LABEL or target == CPU:
        raise BadInputError(
            Reason.INVALID_ARGUMENT,
            f"target {target!r} for TensorRT: use a GPU product as in the node label nvidia.com/gpu.product, "
            "such as NVIDIA-L4",
        )
    return target


def visible_skus(listing: str) -> tuple[str, ...]:
    """Labels of the GPUs, or slices of GPUs, in the output of `nvidia-smi -L`."""
    skus: list[str] = []
    name = ""
    sliced = False
    for line in listing.splitlines():
        if gpu := _GPU.match(line):
            name, sliced = gpu["name"], False
            skus.append(product_label(name))
        elif (mig := _SLICE.match(line)) and name:
            if not sliced:
                # With slices the whole GPU is listed too, but cannot be used.
                skus.pop()
            sliced = True
            skus.append(product_label(name, mig["profile"]))
    return tuple(skus)


def require_gpu(sku: str, listing: str) -> None:
    """Check that the first GPU here, which trtexec uses, is the one that was requested.

    Raises:
        UnavailableError: there is no GPU.
        BadInputError: it is another one.
    """
    skus = visible_skus(listing)
    if not skus:
        raise UnavailableError(
            Reason.NO_GPU,
            f"nvidia-smi lists no GPU, {sku} is needed: does the Job request nvidia.com/gpu, "
            "and is the node's device plugin healthy?",
        )
    if skus[0] != sku.removesuffix(_SHARED):
        raise BadInputError(
            Reason.WRONG_GPU,
            f"this machine has {skus[0]}, the engine is to be compiled for {sku}: engines only run on the GPU product "
            "that they were built on. Is the node's label nvidia.com/gpu.product right?",
        )
