"""Every way in asks for the images in words: a chart that cannot be rendered, a file that says it at its top."""

from __future__ import annotations

import re
import subprocess
import tomllib
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import yaml

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTALL = ROOT / "deploy" / "install.yaml"
REGISTRY = "registry.inside.example:5000/team"


def head(text: str) -> str:
    """The comment at the top."""
    return "\n".join(takewhile(lambda line: line.startswith("#"), text.splitlines()))


def images(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    """References to images in a manifest: of containers, and in variables of the operator."""
    if isinstance(value, dict):
        name = str(value.get("name", ""))
        if name.startswith("DIFFUSION_OPERATOR_") and name.endswith("_IMAGE"):
            yield value["value"]
        if isinstance(value.get("image"), str):
            yield value["image"]
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from images(inner)


def references(text: str) -> list[str]:
    deployments = [item for item in yaml.safe_load_all(text) if item["kind"] == "Deployment"]
    return [image for item in deployments for image in images(item)]


def test_the_plain_manifest_says_at_its_top_which_images_it_needs() -> None:
    text = head(INSTALL.read_text())
    assert "docs/images.md" in text
    assert "ImagePullBackOff" in text
    for variable in ("BUILDER_IMAGE", "SERVING_IMAGE", "GATEWAY_IMAGE"):
        assert f"DIFFUSION_OPERATOR_{variable}" in text


def test_the_command_at_its_top_names_all_images() -> None:
    [expression] = re.findall(r"sed '(.+?)' deploy/install\.yaml", head(INSTALL.read_text()))
    filled = expression.replace("REGISTRY/PATH", REGISTRY)
    changed = subprocess.run(["sed", filled, str(INSTALL)], check=True, capture_output=True, text=True).stdout
    before = references(INSTALL.read_text())
    assert len(before) == 4
    assert references(changed) == [name.replace("registry.example.com", REGISTRY) for name in before]


def test_the_command_at_its_top_pushes_the_tag_that_the_manifest_names() -> None:
    [tag] = re.findall(r"make images REGISTRY=\S+ TAG=(\S+)", head(INSTALL.read_text()))
    assert {name.rpartition(":")[2] for name in references(INSTALL.read_text())} == {tag}


def test_the_command_line_is_a_plugin_of_kubectl() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["kubectl-diffusion"] == scripts["diffusion-operator"]
