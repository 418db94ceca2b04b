"""Running trtexec and nvidia-smi: the only place of this package that starts processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_builder.engines.tensorrt.command import Version, parse_version
from diffusion_builder.engines.tensorrt.log import CompileProgress, LogReader
from diffusion_builder.errors import BadInputError, Reason, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Where NVIDIA's images have it; their PATH does not always say so.
_USUAL_PLACE = "/usr/src/tensorrt/bin"
_QUERY_SECONDS = 60
# Becomes the program given as its arguments, and is killed when the process that started it ends, however that ends:
# a build without a waiting caller would keep the GPU for an hour. PR_SET_PDEATHSIG is 1, SIGKILL is 9.
_WITH_PARENT = (
    "import ctypes,os,sys;ctypes.CDLL(None).prctl(1,9);"
    "os.getppid()==int(sys.argv[1]) or os._exit(137);os.execv(sys.argv[2],sys.argv[2:])"
)


def trtexec() -> Path:
    """Where trtexec is.

    Raises:
        BadInputError: this image has none.
    """
    program = shutil.which("trtexec") or shutil.which("trtexec", path=_USUAL_PLACE)
    if program is None:
        raise BadInputError(
            Reason.VERSION_MISMATCH,
            f"there is no trtexec on PATH nor in {_USUAL_PLACE}: runtime tensorrt needs a builder image with TensorRT",
        )
    return Path(program)


def version(program: Path) -> Version:
    """Which TensorRT a trtexec belongs to; needs no GPU.

    Raises:
        BadInputError: it cannot be started, or is of an unknown version.
    """
    return parse_version(_output([str(program), "--help"]))


def gpus() -> str:
    """What `nvidia-smi -L` prints; empty when there is neither driver nor GPU.

    Raises:
        UnavailableError: there is no nvidia-smi.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        raise UnavailableError(
            Reason.NO_GPU,
            "there is no nvidia-smi, so the container runtime has given this pod no GPU: does the Job request "
            "nvidia.com/gpu, and does NVIDIA_DRIVER_CAPABILITIES contain compute,utility?",
        )
    return _output([program, "-L"])


def _output(command: Sequence[str]) -> str:
    try:
        process = subprocess.run(  # noqa: S603 - programs of the image, arguments of ours
            command, capture_output=True, text=True, errors="replace", timeout=_QUERY_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadInputError(Reason.VERSION_MISMATCH, f"{command[0]} cannot be run: {error}") from error
    return process.stdout + process.stderr


def build(
    program: Path, arguments: Sequence[str], component: str, on_step: Callable[[CompileProgress], None]
) -> tuple[int, ...]:
    """Run trtexec to its end.

    Args:
        program: trtexec.
        arguments: see `command.arguments`.
        component: which one is built, for messages.
        on_step: called for progress, as trtexec's log shows it.

    Returns:
        Bytes that an execution context of each optimization profile allocates; nothing where the log does not say it.

    Raises:
        BuilderError: it failed, or the engine would be useless; the end of its log is on stderr then.
    """
    reader = LogReader(component)
    exit_code = _follow(program, arguments, reader, on_step)
    error = reader.error(exit_code)
    if error is not None:
        sys.stderr.write("".join(f"trtexec: {line}\n" for line in reader.tail))
        raise error
    return tuple(reader.activations)


def _follow(
    program: Path, arguments: Sequence[str], reader: LogReader, on_step: Callable[[CompileProgress], None]
) -> int:
    command = [sys.executable, "-I", "-S", "-c", _WITH_PARENT, str(os.getpid()), str(program), *arguments]
    with subprocess.Popen(  # noqa: S603 - the image's trtexec, arguments of ours
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        try:
            for line in _lines(process):
                if reader.feed(line):
                    on_step(reader.step)
                if reader.is_fatal:
                    break
            else:
                return process.wait()
        finally:
            # Also when the caller is interrupted or its progress cannot be written.
            process.kill()
        return process.wait()


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    if process.stdout is not None:
        yield from process.stdout
