"""The command line is exactly what trtexec of TensorRT 10 and 11 understands."""

from pathlib import Path

import pytest

from diffusion_builder.engines.tensorrt.command import Files, TensorRTOptions, Version, arguments, flags, parse_version
from diffusion_builder.engines.tensorrt.profiles import InputProfile
from diffusion_builder.errors import BadInputError, Reason

FILES = Files(Path("/onnx/model.onnx"), Path("/out/model.plan"), Path("/tmp/timing"), Path("/out/layers.json"))  # noqa: S108
ONE = (InputProfile("a", (1, 4), (2, 4), (8, 4)), InputProfile("b", (1, 1), (2, 1), (8, 1)))
TWO = (InputProfile("a", (1, 4), (8, 4), (8, 4)), InputProfile("b", (1, 1), (8, 1), (8, 1)))


def test_the_whole_command_line() -> None:
    assert arguments(FILES, [ONE, TWO], TensorRTOptions(optimization_level=4, workspace_mib=4096)) == (
        "--onnx=/onnx/model.onnx",
        "--saveEngine=/out/model.plan",
        "--stronglyTyped",
        "--builderOptimizationLevel=4",
        "--memPoolSize=workspace:4096M",
        "--profile=0",
        "--minShapes=a:1x4,b:1x1",
        "--optShapes=a:2x4,b:2x1",
        "--maxShapes=a:8x4,b:8x1",
        "--profile=1",
        "--minShapes=a:1x4,b:1x1",
        "--optShapes=a:8x4,b:8x1",
        "--maxShapes=a:8x4,b:8x1",
        "--timingCacheFile=/tmp/timing",
        "--skipInference",
    )


def test_layers_are_written_only_when_asked_for() -> None:
    extra = set(arguments(FILES, [ONE], TensorRTOptions(layers=True))) - set(arguments(FILES, [ONE], TensorRTOptions()))
    assert extra == {"--profilingVerbosity=detailed", "--exportLayerInfo=/out/layers.json"}


def test_an_unlimited_workspace_is_left_to_tensorrt() -> None:
    assert not any("memPoolSize" in flag for flag in arguments(FILES, [ONE], TensorRTOptions()))


def test_flags_that_name_an_engine_hold_no_path() -> None:
    assert not any("/" in flag for flag in flags([ONE, TWO], TensorRTOptions(3, 1024, layers=True)))


@pytest.mark.parametrize(
    ("level", "workspace"), [(-1, None), (6, None), (3, 0), (3, -5)], ids=["below", "above", "nothing", "negative"]
)
def test_options_out_of_range_are_rejected(level: int, workspace: int | None) -> None:
    with pytest.raises(BadInputError):
        TensorRTOptions(level, workspace)


@pytest.mark.parametrize(
    ("banner", "version"),
    [
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v100600] [b26] # trtexec --help", "10.6.0"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v101303] [b9] # trtexec --help", "10.13.3"),
        ("=== help ===\n&&&& PASSED TensorRT.trtexec [TensorRT v110100] [b41] # trtexec --help", "11.1.0"),
    ],
)
def test_the_version_is_read_from_the_banner(banner: str, version: str) -> None:
    assert str(parse_version(banner)) == version


@pytest.mark.parametrize(
    "banner", ["", "[TensorRT v8601]", "[TensorRT v080601]", "[TensorRT v120000]", "usage: trtexec"]
)
def test_a_version_whose_flags_are_unknown_is_rejected(banner: str) -> None:
    with pytest.raises(BadInputError) as caught:
        parse_version(banner)
    assert caught.value.reason is Reason.VERSION_MISMATCH


def test_versions_are_ordered_by_number() -> None:
    assert Version(10, 9, 0) < Version(10, 13, 0) < Version(11, 0, 0)
