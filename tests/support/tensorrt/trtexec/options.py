"""Parsing of the flags that our builder uses, by the rules of trtexec's `sampleOptions.cpp`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.tensorrt.trtexec.console import warning

if TYPE_CHECKING:
    from collections.abc import Sequence

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
_VALUES = {
    "--onnx", "--saveEngine", "--timingCacheFile", "--memPoolSize", "--builderOptimizationLevel", "--exportLayerInfo",
    "--profilingVerbosity",
}  # fmt: skip
_SWITCHES = {"--stronglyTyped", "--skipInference"}
_BOUNDS = ("--minShapes", "--optShapes", "--maxShapes")


class UsageError(Exception):
    """The command line is refused; one message per line."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass
class Bounds:
    """Shapes of one optimization profile, by flag and input."""

    shapes: dict[str, Shapes] = field(default_factory=dict)

    def of(self, name: str) -> tuple[Shape, Shape, Shape] | None:
        """Smallest, usual and largest shape of an input, or None when the profile leaves it out."""
        if not any(name in shapes for shapes in self.shapes.values()):
            return None
        smallest, usual, largest = (self.shapes[flag][name] for flag in _BOUNDS)
        return smallest, usual, largest


@dataclass(frozen=True)
class Options:
    """A command line that was understood."""

    onnx: Path
    engine: Path
    timing_cache: Path | None
    workspace: int | None
    level: int
    layers: Path | None
    profiles: tuple[Bounds, ...]


def parse(arguments: Sequence[str]) -> Options:
    """Read a command line.

    Raises:
        UsageError: an unknown flag, or a profile that is not one.
    """
    plain, profiles = _split(arguments)
    unknown = [flag for flag in plain if flag not in _VALUES | _SWITCHES]
    if unknown:
        raise UsageError(*(f"Unknown option: {flag} {plain[flag]}" for flag in unknown))
    missing = [flag for flag in ("--onnx", "--saveEngine", "--skipInference") if flag not in plain]
    if missing:
        raise UsageError(f"the test-only trtexec needs {', '.join(missing)}")
    timing, layers = plain.get("--timingCacheFile"), plain.get("--exportLayerInfo")
    return Options(
        Path(plain["--onnx"]), Path(plain["--saveEngine"]), Path(timing) if timing else None,
        _workspace(plain.get("--memPoolSize")), int(plain.get("--builderOptimizationLevel", "3")),
        Path(layers) if layers else None, profiles,
    )  # fmt: skip


def _split(arguments: Sequence[str]) -> tuple[dict[str, str], tuple[Bounds, ...]]:
    """Flags outside of profiles, and the profiles; shapes belong to the `--profile` that they follow directly."""
    plain: dict[str, str] = {}
    profiles: dict[int, Bounds] = {}
    current: Bounds | None = None
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if flag == "--profile":
            if int(value) in profiles:
                raise UsageError("Optimization profile index cannot be the same.")
            current = profiles[int(value)] = Bounds()
        elif flag in _BOUNDS:
            current = _bound(current, profiles, flag, value)
        else:
            plain[flag], current = value, None
    for index in range(max(profiles, default=-1) + 1):
        if index not in profiles or not profiles[index].shapes:
            raise UsageError(f"Found invalid or missing shape spec at profile index {index}. ")
    ordered = tuple(profiles[index] for index in sorted(profiles)) or (Bounds(),)
    for profile in ordered:
        _broadcast(profile)
    return plain, ordered


def _bound(current: Bounds | None, profiles: dict[int, Bounds], flag: str, value: str) -> Bounds:
    if current is None and profiles:
        raise UsageError("Multiple --minShapes/--optShapes/--maxShapes without --profile are not allowed. ")
    bounds = current or profiles.setdefault(0, Bounds())
    bounds.shapes[flag] = {}
    for item in value.split(","):
        name, _, sizes = item.rpartition(":")
        bounds.shapes[flag][name] = tuple(int(size) for size in sizes.split("x"))
    return bounds


def _broadcast(profile: Bounds) -> None:
    for flag, fallbacks in zip(_BOUNDS, (_BOUNDS[1:], _BOUNDS[2::-2], _BOUNDS[1::-1]), strict=True):
        if profile.shapes and flag not in profile.shapes:
            source = next(other for other in fallbacks if other in profile.shapes)
            profile.shapes[flag] = dict(profile.shapes[source])
            for name in profile.shapes[flag]:
                warning(f"{source[2:]} is being broadcasted to {flag[2:]} for tensor {name}")


def _workspace(text: str | None) -> int | None:
    """Bytes of `workspace:4096M`."""
    if text is None:
        return None
    pool, _, size = text.partition(":")
    if pool != "workspace":
        raise UsageError(f"Unknown memory pool: {pool}")
    units = {"B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return int(float(size[:-1]) * units[size[-1]]) if size[-1] in units else int(float(size) * units["M"])
