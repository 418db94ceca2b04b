"""Charts as the API server gets them: Helm's own rendering."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tools.common.errors import ToolError
from tools.common.paths import ROOT
from tools.common.shell import attempt
from tools.devcluster.build import require_built
from tools.devcluster.layout import default_root, layout_at

if TYPE_CHECKING:
    from collections.abc import Mapping

CHART = ROOT / "charts" / "diffusion-operator"
CRD_CHART = ROOT / "charts" / "diffusion-operator-crds"
NAMESPACE = "diffusion-operator"
_SECONDS = 120


def helm(*arguments: str) -> str:
    """Output of Helm.

    Raises:
        ToolError: with Helm's own words.
    """
    program = require_built(layout_at(default_root())).kube / "helm"
    process = attempt([program, *arguments], seconds=_SECONDS)
    if process.returncode:
        raise ToolError(f"helm {arguments[0]} refused", detail=(process.stdout + process.stderr).strip())
    return process.stdout


def render(values: Mapping[str, Any], chart: Path = CHART, *options: str) -> str:
    """All manifests of a release of this name and in this namespace, as YAML.

    Raises:
        ToolError: Helm refuses the values.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "values.json"
        file.write_text(json.dumps(values))
        name = ["diffusion-operator", str(chart), "--namespace", NAMESPACE, "--values", str(file)]
        return helm("template", *name, *options)


def objects(text: str) -> list[dict[str, Any]]:
    """The documents of a rendered chart."""
    return [document for document in yaml.safe_load_all(text) if document]
