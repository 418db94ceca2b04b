"""A real tritonserver for tests: unpacked once into the cache folder, started on free loopback ports."""

from __future__ import annotations

import ctypes.util
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.paths import ROOT
from tools.common.paths import cache_directory
from tools.common.shell import WITH_PARENT
from tools.devcluster.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

WHEEL = "nvidia-pytriton==0.7.0"
VERSION = "2.51"
_UNPACK = ROOT / "tools" / "images" / "triton" / "unpack_triton.py"
_START_SECONDS = 300.0
_STOP_SECONDS = 30.0


class TritonError(Exception):
    """The server cannot be installed or does not start; the message says why."""


@dataclass(frozen=True)
class Server:
    """A running server: its addresses, its process and its log."""

    http: str
    metrics: str
    pid: int
    log: Path
    grpc: str


def install() -> Path:
    """Return the folder of tritonserver, downloading and unpacking it on first use.

    Raises:
        TritonError: no download, or no shared libpython for the Python backend.
    """
    target = cache_directory() / f"triton-{VERSION}"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory() as folder:
        _run("uv", "tool", "run", "pip", "download", "--no-deps", "--quiet", "--dest", folder, WHEEL)
        wheel = next(Path(folder).glob("*.whl"))
        _run(sys.executable, str(_UNPACK), str(wheel), str(target))
    return target


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise TritonError(f"{command[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        raise TritonError(f"{' '.join(command)} failed:\n{error.stderr[-2000:]}") from error


def libpython_folder() -> str | None:
    """Folder of the shared libpython that the Python backend's stub needs; None when the loader finds it itself.

    Raises:
        TritonError: there is none, and it cannot be installed here.
    """
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = sysconfig.get_config_var("LIBDIR")
    if folder and list(Path(folder).glob(f"lib{name}.so*")):
        return str(folder)
    if ctypes.util.find_library(name) is None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise TritonError(f"lib{name}.so is missing: install the package lib{name} (as root)")
        _run("apt-get", "install", "--yes", "--quiet", f"lib{name}")
    return None


@contextmanager
def serve(
    models: Path, *, rate_limit: str = "execution_count", flags: Sequence[str] = (), **environment: str
) -> Iterator[Server]:
    """Serve a model repository until the block ends.

    Args:
        models: the repository's `models` folder.
        rate_limit: what the server's flag of that name says; `off` lets models of a loop run whenever they can.
        flags: more arguments.
        environment: variables for the server, besides this process's own.

    Raises:
        TritonError: it does not become ready; the message ends with its log.
    """
    home = install()
    http, grpc, metrics = free_ports(3)
    with tempfile.TemporaryDirectory(prefix="triton-") as folder:
        log = Path(folder, "log")
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [*WITH_PARENT, *_command(home, models, http, grpc, metrics), f"--rate-limit={rate_limit}", *flags],
                env=_environment(home) | environment, stdout=sink, stderr=sink, process_group=0,
                # The Python backend's interpreter takes no PYTHONPATH, but the current folder is on its path.
                cwd=sysconfig.get_path("purelib"),
            )  # fmt: skip
        address = "127.0.0.1"
        server = Server(
            f"http://{address}:{http}", f"http://{address}:{metrics}/metrics", process.pid, log, f"{address}:{grpc}"
        )
        try:
            _wait_ready(server, process)
            yield server
        finally:
            _stop(process)


def _command(home: Path, models: Path, http: int, grpc: int, metrics: int) -> list[str]:
    return [
        str(home / "bin" / "tritonserver"),
        f"--model-repository={models}",
        f"--backend-directory={home / 'backends'}",
        "--model-control-mode=none",
        "--disable-auto-complete-config",
        "--metrics-config=summary_latencies=true",
        "--http-address=127.0.0.1",
        "--grpc-address=127.0.0.1",
        "--metrics-address=127.0.0.1",
        f"--http-port={http}",
        f"--grpc-port={grpc}",
        f"--metrics-port={metrics}",
    ]


def _environment(home: Path) -> dict[str, str]:
    folders = [str(home / "lib"), libpython_folder(), os.environ.get("LD_LIBRARY_PATH")]
    return os.environ | {"LD_LIBRARY_PATH": ":".join(folder for folder in folders if folder)}


def _wait_ready(server: Server, process: subprocess.Popen[bytes]) -> None:
    def ready() -> bool:
        if process.poll() is not None:
            raise TritonError(f"tritonserver ended with {process.returncode}:\n{server.log.read_text()}")
        try:
            address = f"{server.http}/v2/health/ready"
            with urllib.request.urlopen(address, timeout=5) as response:  # noqa: S310 - our own server
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    wait_until(ready, _START_SECONDS, lambda: f"tritonserver is not ready:\n{server.log.read_text()}")


def end_idle(server: Server) -> None:
    """Tell a server to end, and wait until it says that no request is in flight.

    For a request that it cannot finish it would wait half a minute, and it kept the request's memory until then.

    Raises:
        TritonError: it still waits for one after a minute.
    """
    os.kill(server.pid, signal.SIGTERM)
    nothing = "Found 0 model versions that have in-flight inferences"
    wait_until(lambda: nothing in server.log.read_text(), 300.0, server.log.read_text)


def wait_until(condition: Callable[[], bool], seconds: float, problem: Callable[[], str]) -> None:
    """Wait for a condition with a deadline.

    Raises:
        TritonError: with `problem()` when the deadline has passed.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TritonError(problem())
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_STOP_SECONDS)
    # Stubs of a server that was killed wait for it for ever; they are in its process group.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
