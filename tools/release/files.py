"""The files of a release: wheel and source, charts, the plain manifest, values with digests, bills of materials."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tools.charttools.manifests import INSTALL, INSTALL_HEAD
from tools.common.errors import ToolError, bad_input
from tools.common.packages import require_uv
from tools.common.paths import ROOT
from tools.common.shell import run
from tools.devcluster.build import require_built
from tools.devcluster.layout import default_root, layout_at
from tools.images.recipes import CHART_NAMES, by_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CHARTS: Final = ("diffusion-operator-crds", "diffusion-operator")
# What is installed together: name of the bill → extras of the lock file.
BILLS: Final = {"cli": ("operator",), "serving": ("serving",), "builder": ("builder",), "gateway": ("gateway",)}
RELEASE_HEAD: Final = """\
# The definition of DiffusionPipelines and the operator {version}, for kubectl; images by digest.
#   kubectl apply --server-side -f install.yaml
"""
_DIGEST: Final = re.compile(r"(?P<repository>\S+)@(?P<digest>sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class PushedImage:
    """An image in a registry, by digest."""

    repository: str
    digest: str

    @property
    def name(self) -> str:
        """Last part of the repository."""
        return self.repository.rpartition("/")[2]


def read_pushed(lines: Sequence[str]) -> dict[str, PushedImage]:
    """Read `REPOSITORY@sha256:…` lines; return name → image.

    Raises:
        ToolError: A line is something else, or an image that a cluster needs is missing.
    """
    images = {}
    for line in filter(None, map(str.strip, lines)):
        match = _DIGEST.fullmatch(line)
        if match is None:
            raise bad_input(f"{line!r} is no image by digest", do="write REPOSITORY@sha256:<64 hex>")
        image = PushedImage(match["repository"], match["digest"])
        images[image.name] = image
    if missing := [by_name(name).repository for name in CHART_NAMES if by_name(name).repository not in images]:
        raise bad_input(f"no digest of {', '.join(missing)}", do="push these images, too")
    return images


def find_helm() -> Path:
    """Return Helm: of PATH, or the one that the devcluster has built; ToolError where there is none."""
    program = shutil.which("helm")
    return Path(program) if program else require_built(layout_at(default_root())).kube / "helm"


def build_package(folder: Path) -> None:
    """Build wheel and source distribution into the folder."""
    run([require_uv(), "build", "--quiet", "--out-dir", folder, ROOT], what="building the package")
    (folder / ".gitignore").unlink(missing_ok=True)


def package_charts(folder: Path) -> None:
    """Package both charts into the folder."""
    for chart in CHARTS:
        run([find_helm(), "package", ROOT / "charts" / chart, "--destination", folder])


def write_bills(folder: Path) -> None:
    """Write what every part is made of: CycloneDX 1.5, from the lock file."""
    for name, extras in BILLS.items():
        options = [part for extra in extras for part in ("--extra", extra)]
        command = [
            str(require_uv()),
            "export",
            "--quiet",
            "--frozen",
            "--format",
            "cyclonedx1.5",
            "--no-default-groups",
        ]
        text = run([*command, *options], what="exporting the bill of materials", cwd=ROOT)
        (folder / f"diffusion-{name}.cdx.json").write_text(text)


def write_manifest(folder: Path, version: str, images: Mapping[str, PushedImage]) -> None:
    """Write install.yaml with the released images."""
    text = INSTALL.read_text()
    head = INSTALL_HEAD.replace("VERSION", version)
    if not text.startswith(head):
        raise ToolError(f"{INSTALL} does not begin as generated", do="run `make crds`")
    text = RELEASE_HEAD.format(version=version) + text.removeprefix(head)
    for image in images.values():
        text = text.replace(f"registry.example.com/{image.name}:{version}", f"{image.repository}@{image.digest}")
    if "registry.example.com" in text:
        raise ToolError("install.yaml still has an image of registry.example.com")
    (folder / "install.yaml").write_text(text)


def write_values(folder: Path, images: Mapping[str, PushedImage]) -> None:
    """Write values.yaml, with which the chart takes exactly the released images."""
    lines = ["images:"]
    for name, chart_name in CHART_NAMES.items():
        image = images[by_name(name).repository]
        lines.append(f'  {chart_name}: {{repository: {image.repository}, digest: "{image.digest}"}}')
    (folder / "values.yaml").write_text("\n".join(lines) + "\n")
