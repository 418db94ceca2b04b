"""Links of a folder: followed inside of the claim, rejected where they lead out of it."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from diffusion_builder.errors import Reason
from diffusion_builder.sources.layout import Selection
from tests.support.builder.folder_sources import fetch, fetch_error

if TYPE_CHECKING:
    from pathlib import Path


def _cache(checkpoint: Path, root: Path) -> Path:
    """A hub's cache as `hf download` makes it; returns the snapshot's folder."""
    model = root / "models--org--name"
    snapshot = model / "snapshots" / ("0" * 40)
    (model / "blobs").mkdir(parents=True)
    for number, path in enumerate(sorted(path for path in checkpoint.rglob("*") if path.is_file())):
        blob = model / "blobs" / f"{number:040}"
        shutil.copyfile(path, blob)
        link = snapshot / path.relative_to(checkpoint)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


def test_links_of_a_hub_cache_are_followed(pristine_checkpoint: Path, tmp_path: Path) -> None:
    snapshot = _cache(pristine_checkpoint, tmp_path / "claim")
    artifact = fetch(tmp_path, snapshot)
    assert artifact == fetch(tmp_path, pristine_checkpoint)
    assert not any(path.is_symlink() for path in artifact.path.rglob("*"))
    # The same where the whole cache is named.
    assert (
        fetch(tmp_path, snapshot.parents[2], Selection(subfolder=f"models--org--name/snapshots/{'0' * 40}")) == artifact
    )


def test_a_cache_without_a_snapshots_name_says_which_there_are(pristine_checkpoint: Path, tmp_path: Path) -> None:
    snapshot = _cache(pristine_checkpoint, tmp_path / "claim")
    error = fetch_error(tmp_path, snapshot.parents[1])
    assert (error.reason, f"snapshots/{'0' * 40}" in error.message) == (Reason.MISSING_FILE, True)


def test_links_inside_of_the_claim_are_followed_to_files_and_folders(
    checkpoint: Path, pristine_checkpoint: Path, tmp_path: Path
) -> None:
    claim = tmp_path / "claim"
    shutil.copytree(checkpoint / "unet", claim / "shared" / "unet")
    shutil.rmtree(checkpoint / "unet")
    shutil.move(checkpoint, claim / "model")
    (claim / "model" / "unet").symlink_to("../shared/unet")
    # Folders that lead back to themselves are walked once.
    (claim / "model" / "again").symlink_to(".")
    (claim / "shared" / "unet" / "up").symlink_to("../..")
    assert fetch(tmp_path, claim / "model", root=claim) == fetch(tmp_path, pristine_checkpoint)
    error = fetch_error(tmp_path / "other", claim / "model")
    assert (error.reason, "leads out" in error.message) == (Reason.UNSAFE_PATH, True)


def test_links_that_leave_the_claim_are_rejected(checkpoint: Path, tmp_path: Path) -> None:
    claim = tmp_path / "claim"
    shutil.move(checkpoint, claim / "model")
    (tmp_path / "secret").write_text("{}")
    (claim / "model" / "unet" / "config.json").unlink()
    (claim / "model" / "unet" / "config.json").symlink_to("../../../secret")
    assert fetch_error(tmp_path, claim / "model", root=claim).reason is Reason.UNSAFE_PATH
    (claim / "elsewhere").symlink_to(tmp_path)
    assert fetch_error(tmp_path, claim / "elsewhere", root=claim).reason is Reason.UNSAFE_PATH


def test_a_cache_does_not_open_what_is_around_it(pristine_checkpoint: Path, tmp_path: Path) -> None:
    snapshot = _cache(pristine_checkpoint, tmp_path / "claim")
    (tmp_path / "claim" / "secret").write_text("{}")
    (snapshot / "unet" / "config.json").unlink()
    (snapshot / "unet" / "config.json").symlink_to("../../../../secret")
    assert fetch_error(tmp_path, snapshot).reason is Reason.UNSAFE_PATH


@pytest.mark.parametrize("target", ["missing.json", "config.json"])
def test_a_link_that_leads_nowhere_is_named(checkpoint: Path, tmp_path: Path, target: str) -> None:
    (checkpoint / "unet" / "config.json").unlink()
    (checkpoint / "unet" / "config.json").symlink_to(target)
    error = fetch_error(tmp_path, checkpoint)
    assert (error.reason, "unet/config.json" in error.message) == (Reason.MISSING_FILE, True)
