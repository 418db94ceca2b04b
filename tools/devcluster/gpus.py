"""GPUs of this machine: what nvidia-smi lists, and where the driver is."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from diffusion_contract.skus import product_label
from tools.common.shell import attempt

_PROGRAM = "nvidia-smi"
_OTHER_FOLDERS = "/usr/local/nvidia/bin:/run/nvidia/driver/usr/bin"
_GPU = re.compile(r"GPU \d+: (?P<name>.+) \(UUID: GPU-[^)]+\)")
_SECONDS = 60.0


@dataclass(frozen=True)
class HostGpus:
    """GPUs of one product.

    Attributes:
        product: As GPU feature discovery names it.
        count: How many there are.
        driver_root: Folder of the driver: `/` where its files are among the system's.
    """

    product: str
    count: int
    driver_root: Path = Path("/")


def find_host_gpus() -> HostGpus | None:
    """Return the machine's GPUs; None where there is no driver or no GPU, or where they are of several products."""
    program = shutil.which(_PROGRAM) or shutil.which(_PROGRAM, path=_OTHER_FOLDERS)
    if program is None:
        return None
    listed = attempt([program, "-L"], seconds=_SECONDS)
    return None if listed.returncode else parse_gpus(listed.stdout, driver_root_of(Path(program)))


def parse_gpus(listing: str, driver_root: Path = Path("/")) -> HostGpus | None:
    """Read what `nvidia-smi -L` prints; slices of a GPU in MIG mode are not counted."""
    names = [match["name"] for line in listing.splitlines() if (match := _GPU.fullmatch(line.strip()))]
    if len(set(names)) != 1:
        return None
    return HostGpus(product_label(names[0]), len(names), driver_root)


def driver_root_of(program: Path) -> Path:
    """Return the folder of the driver that a `nvidia-smi` belongs to: `/usr/bin` means the whole system."""
    root = program.parent.parent
    if root.name == "usr":
        root = root.parent
    return Path("/") if root == Path("/usr/local") else root
