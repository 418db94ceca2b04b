"""A trtexec for tests only: our flags, the real program's messages, and TensorRT for RTX as the compiler.

NVIDIA's trtexec needs a GPU. TensorRT for RTX has the same ONNX parser and the same rules for profiles, and compiles
on a CPU, so a command line and a graph that pass here are understood by TensorRT. What it makes is a plan for GeForce
and RTX cards, which nothing ever loads.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from tests.support.tensorrt.trtexec.console import error, info, report
from tests.support.tensorrt.trtexec.options import Options, UsageError, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

# As NV_TENSORRT_VERSION: two digits each for minor and patch.
_VERSION = os.environ.get("TEST_TRTEXEC_VERSION", "110100")


def main(arguments: Sequence[str]) -> int:
    """Do what trtexec does; returns the exit code."""
    name = f"TensorRT.trtexec [TensorRT v{_VERSION}] [b0] # test-only trtexec (TensorRT for RTX) {' '.join(arguments)}"
    report("RUNNING", name)
    code = _run(arguments)
    report("FAILED" if code else "PASSED", name)
    return code


def _run(arguments: Sequence[str]) -> int:
    if "--help" in arguments:
        return 0
    try:
        options = parse(arguments)
    except UsageError as problem:
        for line in problem.lines:
            error(line)
        return 1
    return 0 if _compile(options) else 1


def _compile(options: Options) -> bool:
    from tests.support.tensorrt.trtexec.compiler import compile_network  # noqa: PLC0415 - not needed for --help

    plan = compile_network(options)
    if plan is None:
        error("Engine could not be created from network")
        error("Building engine failed")
        error("Failed to create engine from model or file.")
        error("Engine set up failed")
        return False
    options.engine.write_bytes(plan)
    info("Skipped inference phase since --skipInference is added.")
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
