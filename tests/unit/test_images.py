"""Images are tagged by their inputs: the same inputs give the same tag, and every input counts."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.paths import ROOT
from tools.common.errors import ToolError
from tools.images.cli import chart_values
from tools.images.contexts import source_files, write_context
from tools.images.digest import TAG_LENGTH, Inputs, files_below, fingerprint, tag_of
from tools.images.paths import Paths, default_paths
from tools.images.recipes import CHART_NAMES, RECIPES, Recipe, by_name, layer_chain
from tools.images.registry import parse_registry

if TYPE_CHECKING:
    from pathlib import Path

INPUTS = Inputs(
    containerfile="FROM scratch\n",
    target="",
    files={"code/a.py": "1" * 64},
    requirements="click==8.0 --hash=sha256:00\n",
    parent="0123456789abcdef",
)


def test_the_same_inputs_give_the_same_tag_and_it_is_a_valid_one() -> None:
    tag = tag_of(INPUTS)
    assert tag == tag_of(replace(INPUTS, files=dict(INPUTS.files)))
    assert len(tag) == TAG_LENGTH
    assert set(tag) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    "changed",
    [
        replace(INPUTS, containerfile="FROM scratch\nUSER 1\n"),
        replace(INPUTS, target="runtime"),
        replace(INPUTS, files={"code/a.py": "2" * 64}),
        replace(INPUTS, files={"code/b.py": "1" * 64}),
        replace(INPUTS, files={}),
        replace(INPUTS, requirements="click==8.1 --hash=sha256:00\n"),
        replace(INPUTS, parent="f" * 16),
        replace(INPUTS, arguments=("SERVER=base",)),
    ],
)
def test_every_input_changes_the_tag(changed: Inputs) -> None:
    assert tag_of(changed) != tag_of(INPUTS)


def test_text_that_moves_from_one_input_to_the_next_changes_the_tag() -> None:
    first = replace(INPUTS, containerfile="FROM a", target="b")
    second = replace(INPUTS, containerfile="FROM ab", target="")
    assert tag_of(first) != tag_of(second)


def test_byte_code_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "package" / "__pycache__").mkdir(parents=True)
    (tmp_path / "package" / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"1")
    (tmp_path / "package" / "a.py").write_text("a = 1\n")
    assert list(files_below(tmp_path / "package", "code")) == ["code/a.py"]


def test_being_executable_is_an_input(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o644)
    plain = fingerprint(script)
    script.chmod(0o755)
    assert fingerprint(script) != plain


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    recipe = Recipe(name="x", repository="x", files=(("not/there.py", "there.py"),))
    with pytest.raises(ToolError, match=r"not/there\.py"):
        source_files(recipe, Paths(root=tmp_path, cache=tmp_path / "cache"))


def test_a_context_holds_the_files_with_a_fixed_time_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("a = 1\n")
    recipe = Recipe(name="x", repository="x", files=(("code", "code"),))
    context = tmp_path / "context"
    context.mkdir()
    write_context(recipe, Paths(root=tmp_path, cache=tmp_path / "cache"), context)
    (copied,) = [path for path in context.rglob("*") if path.is_file()]
    assert copied.read_text() == "a = 1\n"
    assert copied.stat().st_mtime == pytest.approx(1_577_836_800)


def test_a_change_of_our_code_moves_neither_the_server_nor_torch() -> None:
    code = {source for recipe in RECIPES for source, _ in recipe.files if source.endswith("_builder")}
    below = [step for name in ("triton", "builder") for step in layer_chain(by_name(name))[:-1]]
    assert code
    assert not [step.name for step in below if code & {source for source, _ in step.files}]


def test_every_recipe_has_its_containerfile() -> None:
    root = default_paths().root
    assert [recipe.name for recipe in RECIPES if not (root / recipe.containerfile).is_file()] == []


def test_the_makefile_and_the_chart_name_the_images_that_a_cluster_needs() -> None:
    [images] = re.findall(r"^IMAGES \?= (.+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert images.split() == list(CHART_NAMES)
    values = yaml.safe_load((ROOT / "charts" / "diffusion-operator" / "values.yaml").read_text())["images"]
    for name, chart_name in CHART_NAMES.items():
        assert values[chart_name]["repository"] == by_name(name).repository


def test_the_values_of_pushed_images_are_those_of_the_chart() -> None:
    registry = parse_registry("registry.example.com:5000/project")
    references = {name: registry.reference(by_name(name).repository, "1e5") for name in (*CHART_NAMES, "demo-hub")}
    values = yaml.safe_load(chart_values(registry, references))
    assert values["images"].pop("registry") == "registry.example.com:5000/project"
    assert set(values["images"]) == set(CHART_NAMES.values())
    assert values["images"]["serving"] == {"repository": "diffusion-triton", "tag": "1e5"}
    assert "imagePullSecrets" not in values
    with_secret = yaml.safe_load(chart_values(registry, references, "registry"))
    assert with_secret["imagePullSecrets"] == [{"name": "registry"}]


_CHART_VALUE = {name: f"images.{chart_name}" for name, chart_name in CHART_NAMES.items()}


def documented(page: str) -> dict[str, list[str]]:
    """Image → the other cells of its row, of the first table of a page."""
    rows = re.findall(r"^\| `(diffusion-[a-z-]+)` \|(.*)\|$", (ROOT / "docs" / page).read_text(), flags=re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}


def test_the_page_of_images_lists_all_of_them_with_their_values() -> None:
    images = documented("images.md")
    published = {recipe.repository for recipe in RECIPES if recipe.published}
    gpu = {f"{by_name(name).repository}-tensorrt" for name in ("builder", "triton")}
    assert set(images) == published | gpu
    expected = {by_name(name).repository: f"`{value}`" for name, value in _CHART_VALUE.items()}
    assert {name: images[name][1] for name in expected} == expected
    assert {images[name][1] for name in gpu} == {"`images.tensorrt.builder`", "`images.tensorrt.serving`"}


def test_a_closed_network_needs_the_same_images() -> None:
    airgap = {name: cells[0] for name, cells in documented("airgap.md").items()}
    assert airgap == {name: cells[-1] for name, cells in documented("images.md").items() if name in airgap}
    assert set(documented("images.md")) - set(airgap) == {by_name("demo-hub").repository}


def test_the_commands_for_docker_build_and_push_every_image_of_the_page() -> None:
    text = (ROOT / "docs" / "images.md").read_text()
    pushed = set(re.findall(r"^\$ docker push \S+/(diffusion-[a-z-]+):", text, flags=re.MULTILINE))
    built = set(re.findall(r"^\$ docker build .* -t \S+/(diffusion-[a-z-]+):", text, flags=re.MULTILINE))
    assert pushed == built == set(documented("airgap.md"))
