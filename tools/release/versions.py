"""One version, in every file that has it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tools.common.errors import bad_input

if TYPE_CHECKING:
    from pathlib import Path

_TAG: Final = re.compile(r"v?(?P<version>\d+\.\d+\.\d+)")


@dataclass(frozen=True)
class Place:
    """Where a file has the version.

    Attributes:
        file: Path in the repository.
        pattern: Regular expression, line by line; its one group is the version.
    """

    file: str
    pattern: str


_OWN_IMAGE: Final = r"/diffusion-(?:operator|builder|triton):(\d+\.\d+\.\d+)$"
_VERSION_LABEL: Final = r"app\.kubernetes\.io/version: (\S+)$"
_GENERATED: Final = (
    "deploy/install.yaml",
    "deploy/kustomize/base/operator.yaml",
    "deploy/kustomize/components/monitoring/monitoring.yaml",
    "deploy/kustomize/pipeline-namespace/networkpolicies.yaml",
)
PLACES: Final = (
    Place("pyproject.toml", r'^version = "(.+)"$'),
    Place("uv.lock", r'^name = "diffusion-operator"\nversion = "(.+)"$'),
    *(
        Place(f"charts/{chart}/Chart.yaml", rf"^{field}: (\S+)$")
        for chart in ("diffusion-operator", "diffusion-operator-crds")
        for field in ("version", "appVersion")
    ),
    Place("charts/diffusion-operator/values.yaml", r'^    tag: "(\d.*)"$'),
    Place("docs/chart.md", r'^\| `images\.\w+\.tag` \| `"(\d\S*)"` \|'),
    Place("deploy/kustomize/overlays/private-registry/kustomization.yaml", r'newTag: "(.+)"$'),
    Place("deploy/kustomize/overlays/private-registry/kustomization.yaml", _OWN_IMAGE),
    Place("deploy/install.yaml", _OWN_IMAGE),
    Place("deploy/install.yaml", r"make images REGISTRY=\S+ TAG=(\S+)$"),
    Place("deploy/kustomize/base/operator.yaml", _OWN_IMAGE),
    *(Place(file, _VERSION_LABEL) for file in _GENERATED),
    Place("examples/github/plan-comment.yaml", r"==(\d\S*?)'"),
    Place("docs/chart.md", r"(?:--version |diffusion-operator:)(\d+\.\d+\.\d+)"),
    Place("docs/installing.md", r"(?:--version |TAG=|==)(\d+\.\d+\.\d+)"),
    Place("docs/images.md", r"diffusion-(?:operator|builder|triton):(\d+\.\d+\.\d+)"),
)


def version_of(tag: str) -> str:
    """Return the version of a tag such as `v0.2.0`; ToolError for another form."""
    match = _TAG.fullmatch(tag)
    if match is None:
        raise bad_input(f"{tag!r} is no tag of a release", do="write vX.Y.Z")
    return match["version"]


def differences(root: Path, version: str) -> list[str]:
    """Return `FILE has VERSION` for every place with another version, and for places that have none."""
    lines = []
    for place in PLACES:
        present = re.findall(place.pattern, (root / place.file).read_text(), flags=re.MULTILINE)
        lines += [f"{place.file} has {other}" for other in sorted(set(present) - {version})]
        lines += [] if present else [f"{place.file} has no line like {place.pattern}"]
    return lines


def check_version(root: Path, version: str) -> None:
    """Raise ToolError unless every place has this version."""
    if lines := differences(root, version):
        raise bad_input(
            f"not every file is of version {version}",
            detail="\n".join(lines),
            do=f"run `python -m tools.release set-version {version}`, and tag the commit with the result",
        )


def set_version(root: Path, version: str) -> list[str]:
    """Write the version into every place; return the files that changed."""
    changed = []
    for place in PLACES:
        path = root / place.file
        text = path.read_text()
        replaced = re.sub(place.pattern, lambda match: _with_version(match, version), text, flags=re.MULTILINE)
        if replaced != text:
            path.write_text(replaced)
            changed.append(place.file)
    return sorted(set(changed))


def _with_version(match: re.Match[str], version: str) -> str:
    start, end = match.start(1) - match.start(), match.end(1) - match.start()
    return match[0][:start] + version + match[0][end:]
