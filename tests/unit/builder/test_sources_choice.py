"""Sources as users have them: subfolders, clones without contents, files of desktops."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from diffusion_builder import sources
from diffusion_builder.cli.main import cli
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.sources.hub import Hub, HubReference
from diffusion_builder.sources.layout import Selection
from diffusion_builder.store import Store
from examples.demo_hub import HubServer, revision_of
from tests.support.builder.file_server import UNET, files_of, ignore
from tests.support.builder.folder_sources import STEMS, as_variant, fetch, fetch_error
from tests.support.builder.hostile_archives import LocalArchive, zip_file
from tests.support.loopback import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3438167540\n"


_LITTER = (
    "samples/サンプル\u30001.png",
    "samples/a\u00a0b.png",
    "samples/👩\u200d🎨.png",
    "README.md",
    "readme.md",
    "caf\u00e9.txt",
    "cafe\u0301.txt",
    "__MACOSX/unet/._config.json",
    ".DS_Store",
    "unet/.DS_Store",
    "unet/._config.json",
    ".git/HEAD",
    "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/r.txt",
)


def _litter(folder: Path) -> None:
    for name in _LITTER:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("litter")


def test_files_that_are_not_used_are_not_judged(checkpoint: Path, pristine_checkpoint: Path, tmp_path: Path) -> None:
    _litter(checkpoint)
    assert fetch(tmp_path, checkpoint) == fetch(tmp_path, pristine_checkpoint)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_with_the_litter_of_a_desktop_is_taken(
    checkpoint: Path, pristine_checkpoint: Path, tmp_path: Path, kind: str
) -> None:
    _litter(checkpoint)
    outer = tmp_path / "packed"
    shutil.move(checkpoint, outer / "model")
    # As macOS packs: one folder, and its own beside it.
    for name in ("__MACOSX/model/._unet", ".DS_Store", "._model"):
        (outer / name).parent.mkdir(parents=True, exist_ok=True)
        (outer / name).write_bytes(b"\0\5\x16\7")
    file = tmp_path / "archive"
    if kind == "zip":
        file.write_bytes(zip_file(outer))
    else:
        with tarfile.open(file, "w") as archive:
            archive.add(outer, arcname=".")
    download = LocalArchive(f"http://local{file}", "0" * 64)
    artifact, _ = sources.from_archive(Store(tmp_path / "store"), download, ignore)
    assert artifact.manifest.files == fetch(tmp_path / "other", pristine_checkpoint).manifest.files


def test_a_lora_among_the_litter_of_a_desktop_is_found(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    folder.mkdir()
    shutil.copyfile(checkpoint / UNET, folder / "style.safetensors")
    (folder / "._style.safetensors").write_bytes(b"\0\5\x16\7")
    assert files_of(fetch(tmp_path, folder, Selection("lora"))) == {"lora/style.safetensors"}


def test_the_settings_beside_a_lora_come_along(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    (folder / "unet").mkdir(parents=True)
    shutil.copyfile(checkpoint / UNET, folder / "unet" / "adapter_model.safetensors")
    (folder / "unet" / "adapter_config.json").write_text('{"lora_alpha": 8}')
    (folder / "adapter_config.json").write_text('{"lora_alpha": 1}')
    artifact = fetch(tmp_path, folder, Selection("lora", "unet/adapter_model.safetensors"))
    assert files_of(artifact) == {"lora/adapter_model.safetensors", "lora/adapter_config.json"}
    assert json.loads((artifact.path / "lora" / "adapter_config.json").read_text()) == {"lora_alpha": 8}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("caf\u00e9.safetensors", "one file where case does not count"),
        ("CAFE\u0301.safetensors", "one file where case does not count"),
    ],
)
def test_a_used_file_is_judged_as_ever(checkpoint: Path, tmp_path: Path, name: str, says: str) -> None:
    folder = tmp_path / "lora"
    folder.mkdir()
    for each in {name, "cafe\u0301.safetensors", "Caf\u00e9.safetensors"}:
        shutil.copyfile(checkpoint / UNET, folder / each)
    error = fetch_error(tmp_path, folder, Selection("lora", name))
    assert (error.reason, says in error.message) == (Reason.UNSAFE_PATH, True)


def test_a_used_name_that_shows_another_is_rejected(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    folder.mkdir()
    shutil.copyfile(checkpoint / UNET, folder / "\u202estyle.safetensors")
    error = fetch_error(tmp_path, folder, Selection("lora"))
    assert error.reason is Reason.UNSAFE_PATH


def _spoil_weights(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / UNET).write_bytes(content)


_CONTENTS: Mapping[str, tuple[Callable[[Path], object], Reason, str]] = {
    "pointer as weights": (_spoil_weights(_POINTER), Reason.GIT_LFS_POINTER, "git lfs pull"),
    "pointer as vocabulary": (
        lambda folder: (folder / "tokenizer" / "vocab.json").write_bytes(_POINTER), Reason.GIT_LFS_POINTER,
        "tokenizer/vocab.json",
    ),
    "pointer as text": (
        lambda folder: (folder / "tokenizer" / "merges.txt").write_bytes(_POINTER), Reason.GIT_LFS_POINTER,
        "tokenizer/merges.txt",
    ),
    "web page as weights": (
        _spoil_weights(b"<!DOCTYPE html><title>Sign in</title>" + b" " * 999), Reason.INVALID_WEIGHTS, "web server",
    ),
    "web page after spaces": (_spoil_weights(b"\n\n  <html>" + b" " * 999), Reason.INVALID_WEIGHTS, "web server"),
    "error as weights": (
        _spoil_weights(b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'), Reason.INVALID_WEIGHTS,
        "AccessDenied",
    ),
    "JSON as weights": (_spoil_weights(b'{"error": "Repository not found"}'), Reason.INVALID_WEIGHTS, "web server"),
    "nothing as weights": (_spoil_weights(b""), Reason.INVALID_WEIGHTS, "is empty"),
    "web page as configuration": (
        lambda folder: (folder / "unet" / "config.json").write_text("<!doctype html><p>404"), Reason.INVALID_CONFIG,
        "web server",
    ),
    "nothing as configuration": (
        lambda folder: (folder / "unet" / "config.json").write_text(""), Reason.INVALID_CONFIG, "is empty",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", _CONTENTS)
def test_what_stands_in_for_a_file_is_named(checkpoint: Path, tmp_path: Path, case: str) -> None:
    spoil, reason, says = _CONTENTS[case]
    spoil(checkpoint)
    error = fetch_error(tmp_path, checkpoint)
    assert error.reason is reason
    assert says in error.message


def _nested(checkpoint: Path) -> None:
    """Two models in one repository: one in the root, one in a folder."""
    shutil.copytree(checkpoint, checkpoint / "v2" / "large")
    (checkpoint / "v2" / "large" / "tokenizer" / "merges.txt").write_text("#version: 0.2\nb a\n")


def test_a_subfolder_is_taken_as_if_it_were_the_root(checkpoint: Path, tmp_path: Path) -> None:
    _nested(checkpoint)
    artifact = fetch(tmp_path, checkpoint, Selection(subfolder="./v2/large/"))
    assert artifact == fetch(tmp_path, checkpoint / "v2" / "large")
    assert artifact != fetch(tmp_path, checkpoint)
    alone = fetch(tmp_path, checkpoint, Selection("tokenizer", subfolder="v2/large"))
    assert alone.manifest.extra["subfolders"]["tokenizer"] == artifact.manifest.extra["subfolders"]["tokenizer"]


def test_a_subfolder_of_a_hub_downloads_only_that_and_has_a_name_of_its_own(checkpoint: Path, tmp_path: Path) -> None:
    _nested(checkpoint)
    shutil.copytree(checkpoint, tmp_path / "hub" / "a" / "b")
    reference = HubReference("a/b", revision_of(tmp_path / "hub" / "a" / "b"))
    with HubServer(("127.0.0.1", 0), tmp_path / "hub", quiet=True) as server, serving(server) as address:
        artifacts = [
            sources.from_hub(Store(tmp_path / "store"), lambda: Hub(address, None), reference, ignore, selection)[0]
            for selection in (Selection(subfolder="v2/large"), Selection())
        ]
    assert artifacts[0].manifest.inputs["subfolder"] == "v2/large"
    assert "subfolder" not in artifacts[1].manifest.inputs
    assert (artifacts[0].path / "tokenizer" / "merges.txt").read_text().endswith("b a\n")


def test_a_subfolder_that_is_not_there_says_which_are(checkpoint: Path, tmp_path: Path) -> None:
    _nested(checkpoint)
    error = fetch_error(tmp_path, checkpoint, Selection(subfolder="v3"))
    assert (error.reason, "v2" in error.message) == (Reason.MISSING_FILE, True)
    (checkpoint / "model_index.json").unlink()
    error = fetch_error(tmp_path, checkpoint)
    assert (error.reason, "v2/large" in error.message, "subfolder" in error.message) == (
        Reason.MISSING_FILE,
        True,
        True,
    )


@pytest.mark.parametrize("subfolder", ["..", "/etc", "v2/../..", "", "a\\b"])
def test_a_subfolder_that_leads_out_is_rejected(subfolder: str) -> None:
    with pytest.raises(BadInputError, match="subfolder") as caught:
        Selection(subfolder=subfolder)
    assert caught.value.reason is Reason.INVALID_ARGUMENT


def test_files_that_are_replaced_in_place_are_another_source(checkpoint: Path, tmp_path: Path) -> None:
    before = fetch(tmp_path, checkpoint)
    path = checkpoint / "tokenizer" / "merges.txt"
    times = path.stat()
    path.write_text(path.read_text().replace("a b", "b a"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = fetch(tmp_path, checkpoint)
    assert before.manifest.digest != after.manifest.digest


def _run(tmp_path: Path, *arguments: str) -> tuple[int, Mapping[str, Any]]:
    result = CliRunner().invoke(
        cli, ["fetch", "--store", str(tmp_path / "store"), "--result", str(tmp_path / "result"), *arguments]
    )
    return result.exit_code, json.loads((tmp_path / "result").read_text())


def test_the_command_takes_subfolder_variant_and_root(checkpoint: Path, tmp_path: Path) -> None:
    claim = tmp_path / "claim"
    shutil.copytree(checkpoint, claim / "models" / "v2")
    as_variant(claim / "models" / "v2", "bf16", keep=True)
    shutil.move(claim / "models" / "v2" / "vae", claim / "vae")
    (claim / "models" / "v2" / "vae").symlink_to("../../vae")
    path = ("--path", str(claim / "models"), "--subfolder", "v2", "--variant", "bf16")
    assert _run(tmp_path, *path)[1]["error"]["reason"] == "UnsafePath"
    code, body = _run(tmp_path, *path, "--root", str(claim))
    assert (code, sorted(body["subfolders"])) == (0, sorted((*STEMS, "scheduler", "tokenizer")))
    code, body = _run(tmp_path, "--repo", "a/b", "--revision", "0" * 40, "--root", str(claim))
    assert (code, body["error"]["reason"]) == (64, "InvalidArgument")


def test_a_zip_with_backslashes_is_read_as_it_is_meant(pristine_checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "archive"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model\\unet\\", b"")
        for path in sorted(path for path in pristine_checkpoint.rglob("*") if path.is_file()):
            name = "\\".join(("model", *path.relative_to(pristine_checkpoint).parts))
            archive.writestr(name, path.read_bytes())
    artifact, _ = sources.from_archive(Store(tmp_path / "store"), LocalArchive(f"http://local{file}", "0" * 64), ignore)
    assert artifact.manifest.files == fetch(tmp_path / "other", pristine_checkpoint).manifest.files


@pytest.mark.parametrize("content", [b"hf_abc\nhf_def", b"\xff\xfeh\0f\0", b"hf abc", "hf_\u00e9".encode()])
def test_a_token_file_that_holds_no_token_is_named_and_not_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    (tmp_path / "token").write_bytes(content)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(BadInputError, match="holds no token") as caught:
        Hub.from_environment()
    assert caught.value.reason is Reason.ACCESS_DENIED
    assert "hf" not in caught.value.message
