"""The store shows whole artifacts or none, whoever is killed."""

from __future__ import annotations

import errno
import functools
import itertools
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from diffusion_builder.errors import BadInputError, ExitCode, Reason, StoreError, UnavailableError
from diffusion_builder.store import STAGING_GRACE_SECONDS, Kind, Recipe, Store, scratch_of, staging
from diffusion_builder.store.garbage_collection import GarbageCollectionOptions, collect

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def _write(folder: Path) -> Mapping[str, Any]:
    (folder / "a").mkdir()
    (folder / "a" / "b.txt").write_text("hello")
    return {"note": 1}


def test_an_artifact_is_made_once_and_found_again(tmp_path: Path) -> None:
    store, recipe = Store(tmp_path), Recipe(Kind.ONNX, {"x": 1}, {"tool": "1"})
    first, cached = store.publish(recipe, _write)
    assert (cached, first.manifest.digest, first.manifest.extra) == (False, recipe.digest, {"note": 1})
    assert first.manifest.files["a/b.txt"].size == 5
    again, cached = store.publish(recipe, lambda _folder: pytest.fail("made twice"))
    assert (cached, again) == (True, first)


def test_only_inputs_name_an_artifact() -> None:
    assert Recipe(Kind.ONNX, {"a": 1, "b": 2}).digest == Recipe(Kind.ONNX, {"b": 2, "a": 1}, {"tool": "9"}).digest
    assert Recipe(Kind.ONNX, {"a": 1}).digest != Recipe(Kind.ENGINE, {"a": 1}).digest


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> Mapping[str, Any]:
        (folder / "half").write_text("half")
        raise BadInputError(Reason.EXPORT_FAILED, "no")

    with pytest.raises(BadInputError):
        Store(tmp_path).publish(Recipe(Kind.ONNX, {}), fail)
    assert list((tmp_path / "onnx").iterdir()) == []


def test_of_two_writers_one_wins_and_both_get_the_artifact(tmp_path: Path) -> None:
    store, recipe, barrier = Store(tmp_path), Recipe(Kind.ONNX, {}), threading.Barrier(2, timeout=30)
    results = []

    def write(folder: Path) -> Mapping[str, Any]:
        barrier.wait()
        return _write(folder)

    threads = [threading.Thread(target=lambda: results.append(store.publish(recipe, write)[0].path)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [store.folder(Kind.ONNX, recipe.digest)] * 2
    assert [path.name for path in (tmp_path / "onnx").iterdir()] == [recipe.digest]


def test_what_killed_writers_left_is_removed_after_a_grace_time(tmp_path: Path) -> None:
    now = int(time.time())
    old = tmp_path / "onnx" / f".tmp-{now - int(STAGING_GRACE_SECONDS) - 60}-0-0"
    young = tmp_path / "onnx" / f".tmp-{now - 60}-0-0"
    for folder in (old, young):
        folder.mkdir(parents=True)
    Store(tmp_path).publish(Recipe(Kind.ONNX, {}), _write)
    assert (old.exists(), young.exists()) == (False, True)


def test_a_writer_that_works_for_long_keeps_its_folder_by_its_lease(tmp_path: Path) -> None:
    now = int(time.time())
    alive = tmp_path / "onnx" / f".tmp-{now - 10 * int(STAGING_GRACE_SECONDS)}-0-0"
    alive.mkdir(parents=True)
    (alive / "lease").write_text(str(now - 20))
    Store(tmp_path).publish(Recipe(Kind.ONNX, {}), _write)
    assert alive.exists()


def test_a_lease_is_renewed_while_its_writer_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_BEAT_SECONDS", 0.001)
    times = itertools.count(1_000_000)
    renewal_times: set[float | None] = set()

    def write(folder: Path) -> Mapping[str, Any]:
        deadline = time.monotonic() + 20
        while len(renewal_times) < 3 and time.monotonic() < deadline:
            renewal_times.add(staging.heartbeat_at(folder.parent))
        return _write(folder)

    Store(tmp_path, lambda: float(next(times))).publish(Recipe(Kind.ONNX, {}), write)
    assert len(renewal_times) == 3


@pytest.mark.parametrize("name", [".tmp-", ".tmp-half", f".tmp-{10**12}-0-0"])
def test_litter_without_a_believable_time_does_not_stay_for_ever(tmp_path: Path, name: str) -> None:
    (tmp_path / "onnx" / name).mkdir(parents=True)
    now = time.time()
    for number, later in enumerate((0.0, STAGING_GRACE_SECONDS + 60)):
        clock = functools.partial(sum, (now, later))
        Store(tmp_path, clock).publish(Recipe(Kind.ONNX, {"number": number}), _write)
    assert not [path for path in (tmp_path / "onnx").iterdir() if path.name.startswith(".tmp-")]


def test_file_times_decide_nothing(tmp_path: Path) -> None:
    now = int(time.time())
    young = tmp_path / "onnx" / f".tmp-{now - 60}-0-0"
    young.mkdir(parents=True)
    os.utime(young, (0, 0))
    store = Store(tmp_path)
    artifact, _ = store.publish(Recipe(Kind.ONNX, {}), _write)
    os.utime(artifact.path, (0, 0))
    collect(store, GarbageCollectionOptions(keep=(), grace=3600))
    assert young.exists()
    assert artifact.path.exists()


def test_neither_hard_links_nor_changes_of_owner_or_mode_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rejected(*_arguments: object, **_options: object) -> None:
        raise PermissionError(errno.EPERM, "not on this filesystem")

    for name in ("link", "chown", "lchown", "fchown", "chmod", "fchmod", "utime", "setxattr"):
        monkeypatch.setattr(os, name, rejected)
    assert not Store(tmp_path).publish(Recipe(Kind.ONNX, {}), _write)[1]


def test_a_folder_that_lost_its_manifest_is_made_again(tmp_path: Path) -> None:
    store, recipe = Store(tmp_path), Recipe(Kind.ONNX, {})
    artifact, _ = store.publish(recipe, _write)
    (artifact.path / "manifest.json").unlink()
    (artifact.path / "a" / "b.txt").unlink()
    again, cached = store.publish(recipe, _write)
    assert not cached
    assert (again.path / "a" / "b.txt").read_text() == "hello"
    assert [path.name for path in (tmp_path / "onnx").iterdir()] == [recipe.digest]


def test_an_artifact_under_another_name_is_damaged(tmp_path: Path) -> None:
    store = Store(tmp_path)
    artifact, _ = store.publish(Recipe(Kind.ONNX, {}), _write)
    artifact.path.rename(artifact.path.with_name("0" * 64))
    with pytest.raises(StoreError, match="belongs to onnx/"):
        store.find(Kind.ONNX, "0" * 64)


@pytest.mark.parametrize("end", [UnavailableError(Reason.HUB_UNREACHABLE, "gone"), SystemExit(143)])
def test_a_download_that_broke_off_goes_on_where_it_was(tmp_path: Path, end: BaseException) -> None:
    store, recipe = Store(tmp_path), Recipe(Kind.SOURCE, {}, resumable=True)

    def breaks(folder: Path) -> Mapping[str, Any]:
        (scratch_of(folder) / "part").write_text("half")
        raise end

    def goes_on(folder: Path) -> Mapping[str, Any]:
        assert (scratch_of(folder) / "part").read_text() == "half"
        return _write(folder)

    with pytest.raises(type(end)):
        store.publish(recipe, breaks)
    store.publish(recipe, goes_on)
    assert [path.name for path in (tmp_path / "sources").iterdir()] == [recipe.digest]


def test_what_another_writer_of_the_same_artifact_still_fills_is_not_taken_from_it(tmp_path: Path) -> None:
    store, recipe = Store(tmp_path), Recipe(Kind.SOURCE, {}, resumable=True)

    def inner(folder: Path) -> Mapping[str, Any]:
        assert not any(scratch_of(folder).iterdir())
        return _write(folder)

    def outer(folder: Path) -> Mapping[str, Any]:
        (scratch_of(folder) / "part").write_text("mine")
        store.publish(recipe, inner)
        assert (scratch_of(folder) / "part").read_text() == "mine"
        return _write(folder)

    store.publish(recipe, outer)


def test_a_download_nobody_goes_on_with_is_removed(tmp_path: Path) -> None:
    now = time.time()

    def breaks(folder: Path) -> Mapping[str, Any]:
        (scratch_of(folder) / "part").write_text("half")
        raise UnavailableError(Reason.HUB_UNREACHABLE, "gone")

    with pytest.raises(UnavailableError):
        Store(tmp_path, lambda: now).publish(Recipe(Kind.SOURCE, {}, resumable=True), breaks)
    assert len(list((tmp_path / "sources").iterdir())) == 1
    collect(Store(tmp_path, lambda: now + STAGING_GRACE_SECONDS + 1), GarbageCollectionOptions(keep=(), grace=0))
    assert list((tmp_path / "sources").iterdir()) == []


def test_missing_space_is_found_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=str(10**18)) as caught:
        Store(tmp_path).publish(Recipe(Kind.ONNX, {}, required_bytes=10**18), lambda _folder: pytest.fail("written"))
    assert (caught.value.reason, caught.value.exit_code) == (Reason.STORE_FULL, ExitCode.STORE)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, Reason.STORE_FULL),
        (errno.EDQUOT, Reason.STORE_FULL),
        (errno.EROFS, Reason.STORE_READ_ONLY),
        (errno.EIO, Reason.STORE_UNAVAILABLE),
    ],
)
def test_trouble_while_writing_has_its_reason_and_leaves_nothing(tmp_path: Path, number: int, reason: Reason) -> None:
    def fail(_folder: Path) -> Mapping[str, Any]:
        raise OSError(number, os.strerror(number))

    with pytest.raises(StoreError) as caught:
        Store(tmp_path).publish(Recipe(Kind.ONNX, {}, required_bytes=12345), fail)
    assert caught.value.reason is reason
    assert list((tmp_path / "onnx").iterdir()) == []


@pytest.mark.parametrize("digest", ["", "x", "../../etc", "A" * 64])
def test_what_is_no_digest_is_never_a_path(tmp_path: Path, digest: str) -> None:
    with pytest.raises(BadInputError, match="not a digest"):
        Store(tmp_path).get(Kind.ONNX, digest)


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    store, recipe = Store(tmp_path), Recipe(Kind.ONNX, {})
    artifact, _ = store.publish(recipe, _write)
    (artifact.path / "manifest.json").write_text("{}")
    with pytest.raises(StoreError, match=r"manifest\.json is damaged"):
        store.find(Kind.ONNX, recipe.digest)
