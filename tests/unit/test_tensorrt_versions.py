"""The check of an image for GPUs, with programs and libraries that say a version and can do nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = ROOT / "tools" / "images" / "tensorrt" / "tensorrt_versions.py"


@dataclass(frozen=True)
class Image:
    """A folder with the three parts."""

    folder: Path

    def write_trtexec(self, number: int) -> None:
        program = self.folder / "bin" / "trtexec"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "&&&& RUNNING TensorRT.trtexec [TensorRT v{number}] [b9] # trtexec $*"\n')
        program.chmod(0o755)

    def write_package(self, version: str) -> None:
        package = self.folder / "package" / "tensorrt"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text(f'__version__ = "{version}"\n')

    def write_server(self, number: int) -> None:
        """A backend that is linked with a libnvinfer of that version."""
        backend = self.folder / "triton" / "backends" / "tensorrt"
        backend.mkdir(parents=True, exist_ok=True)
        library = self.folder / "libnvinfer.so.10"
        compile_library(
            library, f"int getInferLibVersion(void) {{ return {number}; }}", ["-Wl,-soname,libnvinfer.so.10"]
        )
        source = "int getInferLibVersion(void); int backend(void) { return getInferLibVersion(); }"
        options = [str(library), f"-Wl,-rpath,{self.folder}"]
        compile_library(backend / "libtriton_tensorrt.so", source, options)

    def check(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder / "package"),
            "TRITON_FOLDER": str(self.folder / "triton"),
        }
        argv = [sys.executable, "-", *arguments]
        return subprocess.run(
            argv, input=SCRIPT.read_text(), env=environment, capture_output=True, text=True, check=False
        )


def compile_library(path: Path, source: str, options: list[str]) -> None:
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-xc", "-", "-xnone", *options, "-o", path], input=source.encode(), check=True
    )


@pytest.fixture
def image(tmp_path: Path) -> Image:
    image = Image(tmp_path)
    image.write_trtexec(101303)
    image.write_package("10.13.3.9")
    image.write_server(101303)
    return image


def test_three_parts_of_one_version_pass(image: Image) -> None:
    process = image.check()
    assert process.stdout.split() == ["trtexec", "10.13.3", "package", "10.13.3", "server", "10.13.3"]
    assert process.returncode == 0
    assert image.check("server", "--expect", "10.13.3").returncode == 0


@pytest.mark.parametrize("part", ["trtexec", "package", "server"])
def test_a_part_of_another_version_fails_with_both(image: Image, part: str) -> None:
    {"trtexec": image.write_trtexec, "server": image.write_server}.get(part, lambda _number: None)(100600)
    if part == "package":
        image.write_package("10.6.0")
    process = image.check()
    assert process.returncode == 1
    assert "more than one version: 10.13.3, 10.6.0" in process.stderr
    assert image.check("--expect", "11.2.0").returncode == 1


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    process = Image(tmp_path).check()
    assert process.returncode == 1
    lines = process.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [[part, "missing:"] for part in ("trtexec", "package", "server")]
    assert "this server has no TensorRT backend" in lines[2]


def test_a_part_that_does_not_exist_is_refused(image: Image) -> None:
    assert "no such part: trtexc" in image.check("trtexc").stderr
