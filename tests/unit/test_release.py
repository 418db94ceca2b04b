"""A release is one version everywhere, images by digest, and signatures that another file or key does not have."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.paths import ROOT
from tools.charttools.manifests import INSTALL
from tools.common.errors import ToolError
from tools.release import files, signatures, versions
from tools.release.files import PushedImage

if TYPE_CHECKING:
    from pathlib import Path

VERSION = INSTALL.read_text().partition("TAG=")[2].partition("\n")[0]
DIGEST = f"sha256:{'ab' * 32}"
NAMES = ("diffusion-operator", "diffusion-builder", "diffusion-gateway", "diffusion-triton")
IMAGES = {name: PushedImage(f"ghcr.io/team/{name}", DIGEST) for name in NAMES}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files of this checkout that have the version."""
    for place in versions.PLACES:
        copy = tmp_path / place.file
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / place.file).read_bytes())
    return tmp_path


def test_every_file_of_the_checkout_has_one_version() -> None:
    versions.check_version(ROOT, VERSION)


def test_a_version_is_written_into_every_place_and_nowhere_else(checkout: Path) -> None:
    changed = versions.set_version(checkout, "9.8.7")
    assert changed == sorted({place.file for place in versions.PLACES})
    assert versions.differences(checkout, "9.8.7") == []
    for name in changed:
        before, after = (ROOT / name).read_text().splitlines(), (checkout / name).read_text().splitlines()
        assert [line.replace("9.8.7", VERSION) for line in after] == before


@pytest.mark.parametrize("place", versions.PLACES, ids=lambda place: f"{place.file}: {place.pattern}")
def test_a_tag_is_refused_while_one_place_has_another_version(checkout: Path, place: versions.Place) -> None:
    path = checkout / place.file
    match = re.search(place.pattern, path.read_text(), flags=re.MULTILINE)
    assert match
    text = path.read_text()
    path.write_text(text[: match.start(1)] + "0.0.9" + text[match.end(1) :])
    with pytest.raises(ToolError, match="not every file is of version") as error:
        versions.check_version(checkout, VERSION)
    assert error.value.detail == f"{place.file} has 0.0.9"


@pytest.mark.parametrize("tag", ["", "v1", "v1.2", "1.2.3-rc1", "latest"])
def test_a_tag_of_another_form_is_refused(tag: str) -> None:
    with pytest.raises(ToolError, match="is no tag of a release"):
        versions.version_of(tag)


def test_the_released_manifest_has_every_image_by_digest(tmp_path: Path) -> None:
    files.write_manifest(tmp_path, VERSION, IMAGES)
    text = (tmp_path / "install.yaml").read_text()
    assert sorted(re.findall(r"\S+@sha256:\S+", text)) == sorted(f"ghcr.io/team/{name}@{DIGEST}" for name in NAMES)
    assert "registry.example.com" not in text
    assert len(list(yaml.safe_load_all(text))) == len(list(yaml.safe_load_all(INSTALL.read_text())))


def test_the_released_values_are_the_charts(tmp_path: Path) -> None:
    files.write_values(tmp_path, IMAGES)
    images = yaml.safe_load((tmp_path / "values.yaml").read_text())["images"]
    chart = yaml.safe_load((ROOT / "charts" / "diffusion-operator" / "values.yaml").read_text())["images"]
    assert {name: chart[name]["repository"] for name in images} == {
        name: image["repository"].rpartition("/")[2] for name, image in images.items()
    }
    assert {image["digest"] for image in images.values()} == {DIGEST}


def test_images_are_read_by_digest_and_none_may_be_missing() -> None:
    lines = [f"ghcr.io/team/{name}@{DIGEST}" for name in NAMES]
    assert files.read_pushed(["", *lines]) == IMAGES
    with pytest.raises(ToolError, match="no digest of diffusion-triton"):
        files.read_pushed(lines[:2])
    with pytest.raises(ToolError, match="is no image by digest"):
        files.read_pushed([*lines, "ghcr.io/team/diffusion-base:0.1.0"])


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    """A folder with two files, their checksums and the signature."""
    (tmp_path / "keys").mkdir()
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "a").write_text("a")
    (folder / "b").write_text("b")
    private, _ = signatures.make_key(tmp_path / "keys")
    signatures.sign(signatures.write_checksums(folder), private, folder / signatures.SIGNATURE)
    return folder


def verify(folder: Path, public: Path) -> list[str]:
    signatures.verify(folder / signatures.CHECKSUMS, public, folder / signatures.SIGNATURE)
    return signatures.check_checksums(folder)


def test_what_was_signed_is_verified(signed: Path) -> None:
    assert verify(signed, signed.parent / "keys" / "key.pub") == ["a", "b"]


def test_a_changed_an_added_and_a_missing_file_are_refused(signed: Path) -> None:
    public = signed.parent / "keys" / "key.pub"
    (signed / "c").write_text("c")
    with pytest.raises(ToolError, match="is not what"):
        verify(signed, public)
    (signed / "c").unlink()
    (signed / "a").write_text("b")
    with pytest.raises(ToolError, match="is not what"):
        verify(signed, public)
    signatures.write_checksums(signed)
    with pytest.raises(ToolError, match="is not the signature"):
        verify(signed, public)


def test_the_key_of_somebody_else_is_refused(signed: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    _, other = signatures.make_key(tmp_path / "other")
    with pytest.raises(ToolError, match="is not the signature"):
        verify(signed, other)
