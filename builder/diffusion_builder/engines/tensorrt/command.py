"""The command line of trtexec, as data.

Every flag here means the same in TensorRT 10.0 to 11.1 (its `sampleOptions.cpp`). Others that people use do not:
`--fp16` and its like are gone in 11, where all networks are strongly typed; precision is in the graph instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from diffusion_builder.engines.tensorrt.profiles import Profile

SUPPORTED_MAJORS = (10, 11)
MIN_LEVEL, MAX_LEVEL = 0, 5
# `&&&& RUNNING TensorRT.trtexec [TensorRT v101303] [b9] # trtexec --help`; two digits each for minor and patch.
_BANNER = re.compile(r"\[TensorRT v(\d{1,2})(\d{2})(\d{2})\]")


@dataclass(frozen=True, order=True)
class Version:
    """A version of TensorRT; plans only load in the one that they were built with."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


@dataclass(frozen=True)
class TensorRTOptions:
    """User settings of a build.

    Args:
        optimization_level: 0 (quick build) to 5 (longest search for fast kernels).
        workspace_mib: scratch memory that kernels may use, in MiB; None leaves it to TensorRT (all of the GPU).
        layers: whether a JSON file with the engine's layers is written beside it.
    """

    optimization_level: int = 3
    workspace_mib: int | None = None
    layers: bool = False

    def __post_init__(self) -> None:
        if not MIN_LEVEL <= self.optimization_level <= MAX_LEVEL:
            raise BadInputError(
                Reason.INVALID_ARGUMENT,
                f"optimization level {self.optimization_level}: use {MIN_LEVEL} (quickest build) to {MAX_LEVEL}",
            )
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise BadInputError(Reason.INVALID_ARGUMENT, f"workspace {self.workspace_mib} MiB: use at least 1")


@dataclass(frozen=True)
class Files:
    """Files that trtexec reads and writes.

    Args:
        onnx: the graph; its external weights lie beside it.
        plan: the engine that is written.
        timing_cache: kernel timings, read and written.
        layers: the JSON file of layers.
    """

    onnx: Path
    plan: Path
    timing_cache: Path
    layers: Path


def parse_version(output: str) -> Version:
    """Find the version in what `trtexec --help` prints.

    Raises:
        BadInputError: there is none, or it is one whose flags are not known.
    """
    match = _BANNER.search(output)
    if match is None:
        raise BadInputError(
            Reason.VERSION_MISMATCH, "trtexec does not say which version of TensorRT it has: is it NVIDIA's trtexec?"
        )
    version = Version(*(int(part) for part in match.groups()))
    if version.major not in SUPPORTED_MAJORS:
        raise BadInputError(
            Reason.VERSION_MISMATCH,
            f"trtexec is of TensorRT {version}; use a builder image with TensorRT "
            f"{' or '.join(str(major) for major in SUPPORTED_MAJORS)}",
        )
    return version


def flags(profiles: Sequence[Profile], options: TensorRTOptions) -> tuple[str, ...]:
    """Every flag that decides what the engine is; these go into its name in the store.

    Args:
        profiles: at least one.
        options: user settings.
    """
    all_flags = [
        # Types are those of the graph; 10 would otherwise be free to choose, 11 accepts the flag and does so anyway.
        "--stronglyTyped",
        f"--builderOptimizationLevel={options.optimization_level}",
    ]
    if options.workspace_mib is not None:
        all_flags.append(f"--memPoolSize=workspace:{options.workspace_mib}M")
    if options.layers:
        all_flags.append("--profilingVerbosity=detailed")
    for index, profile in enumerate(profiles):
        # trtexec reads the three shapes as belonging to the profile that they follow directly.
        all_flags.append(f"--profile={index}")
        all_flags += [f"--{bound}Shapes={_shapes(profile, bound)}" for bound in ("min", "opt", "max")]
    return tuple(all_flags)


def arguments(files: Files, profiles: Sequence[Profile], options: TensorRTOptions) -> tuple[str, ...]:
    """All arguments of trtexec, without the program."""
    all_arguments = [
        f"--onnx={files.onnx}",
        f"--saveEngine={files.plan}",
        *flags(profiles, options),
        f"--timingCacheFile={files.timing_cache}",
        # The measurement after the build takes the GPU and says nothing about real inputs.
        "--skipInference",
    ]
    if options.layers:
        all_arguments.append(f"--exportLayerInfo={files.layers}")
    return tuple(all_arguments)


def _shapes(profile: Profile, bound: str) -> str:
    return ",".join(f"{item.name}:{'x'.join(str(size) for size in getattr(item, bound))}" for item in profile)
