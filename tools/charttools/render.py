"""Charts as the API server gets them: Helm's own rendering."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tools.charttools.errors import ChartError
from tools.devcluster.build import require_built
from tools.devcluster.layout import default_root, layout_at

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "diffusion-operator"
CRD_CHART = ROOT / "charts" / "diffusion-operator-crds"
NAMESPACE = "diffusion-operator"


def helm(*arguments: str) -> str:
    """Output of Helm.

    Raises:
        ChartError: with Helm's own words.
    """
    program = require_built(layout_at(default_root())).kube / "helm"
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise ChartError(f"helm {arguments[0]} refused:\n{done.stdout}{done.stderr}".strip())
    return done.stdout


def render(values: Mapping[str, Any], chart: Path = CHART, *options: str) -> str:
    """All manifests of a release of this name and in this namespace, as YAML.

    Raises:
        ChartError: Helm refuses the values.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "values.json"
        file.write_text(json.dumps(values))
        name = ["diffusion-operator", str(chart), "--namespace", NAMESPACE, "--values", str(file)]
        return helm("template", *name, *options)


def objects(text: str) -> list[dict[str, Any]]:
    """The documents of a rendered chart."""
    return [document for document in yaml.safe_load_all(text) if document]
