"""A store that is full, limited or read-only says so with the bytes, and keeps no litter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from diffusion_builder.errors import BadInputError, Reason, StoreError
from diffusion_builder.store import Kind, Recipe, Store, errors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_PYTHONPATH = os.pathsep.join(sys.path)
# Writes three files of a MiB: the second or third does not fit.
_WRITER = """
import json, os, sys
from pathlib import Path
from diffusion_builder.errors import StoreError
from diffusion_builder.store import Kind, Recipe, Store

def write(folder):
    for index in range(3):
        (folder / str(index)).write_bytes(bytes(1 << 20))
    return {}

root = Path(sys.argv[1])
exec(sys.argv[2])
try:
    Store(root).publish(Recipe(Kind.ONNX, {}, required_bytes=int(sys.argv[3])), write)
except StoreError as error:
    left = sorted(path.name for path in root.rglob("*")) if root.exists() else []
    print(json.dumps([error.reason, error.message, left]))
"""


def _publish(root: Path, before: str, needed: int = 0, wrapper: tuple[str, ...] = ()) -> tuple[str, str, list[str]]:
    command = [*wrapper, sys.executable, "-c", _WRITER, str(root), before, str(needed)]
    environment = os.environ | {"PYTHONPATH": _PYTHONPATH}
    process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment)
    reason, message, folder_names = json.loads(process.stdout)
    return reason, message, folder_names


def _own_mounts(root: Path, options: str) -> tuple[str, ...]:
    """A command's beginning that gives the rest a filesystem of its own, which goes with it."""
    root.mkdir(parents=True)
    rights = () if os.getuid() == 0 else ("--map-root-user", "--user")
    script = f'mount -t tmpfs -o {options} tmpfs "$0" && exec "$@"'
    return ("unshare", "--mount", *rights, "sh", "-c", script, str(root))


def test_a_disk_that_fills_up_is_told_with_the_bytes_and_nothing_stays(tmp_path: Path) -> None:
    root = tmp_path / "store"
    reason, message, folder_names = _publish(root, "", wrapper=_own_mounts(root, "size=2m"))
    assert (reason, folder_names) == (Reason.STORE_FULL, ["onnx"])
    # The writer did not know; so many it had written when the disk was full.
    bytes_needed = int(message.split("full: ")[1].split(" ")[0])
    assert (1 << 20) < bytes_needed <= (2 << 20)


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(tmp_path: Path) -> None:
    root = tmp_path / "store"
    reason, message, folder_names = _publish(root, "", needed=3 << 20, wrapper=_own_mounts(root, "size=2m"))
    assert (reason, folder_names) == (Reason.STORE_FULL, ["onnx"])
    assert str(3 << 20) in message


def test_a_read_only_store_is_told(tmp_path: Path) -> None:
    root = tmp_path / "store"
    reason, message, folder_names = _publish(root, "", wrapper=_own_mounts(root, "ro"))
    assert (reason, folder_names) == (Reason.STORE_READ_ONLY, [])
    assert "mount it writable" in message


def test_a_limit_for_file_sizes_is_told_with_the_bytes_and_nothing_stays(tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    reason, message, folder_names = _publish(tmp_path / "store", limit)
    assert (reason, folder_names) == (Reason.STORE_FULL, ["onnx"])
    assert "100000 bytes and more" in message


def test_a_library_that_hides_a_full_disk_does_not_make_it_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(_folder: Path) -> Mapping[str, Any]:
        monkeypatch.setattr(errors, "free", lambda _root: 0)
        raise BadInputError(Reason.COMPILE_FAILED, "model cannot be written")

    with pytest.raises(StoreError) as caught:
        Store(tmp_path).publish(Recipe(Kind.ENGINE, {}, required_bytes=777), write)
    assert caught.value.reason is Reason.STORE_FULL
    assert "777" in caught.value.message


def test_what_is_there_is_found_in_a_read_only_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, recipe = Store(tmp_path), Recipe(Kind.ONNX, {})
    artifact, _ = store.publish(recipe, lambda _folder: {})

    def rejected(*_arguments: object, **_options: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "open", rejected)
    monkeypatch.setattr(os, "mkdir", rejected)
    assert store.get(Kind.ONNX, recipe.digest) == artifact
    assert store.publish(recipe, lambda _folder: pytest.fail("written")) == (artifact, True)
