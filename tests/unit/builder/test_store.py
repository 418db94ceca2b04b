"""The store shows whole artifacts or none, whoever is killed."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from diffusion_builder import store as store_module
from diffusion_builder.errors import BadInputError, ExitCode, Reason, StoreError
from diffusion_builder.store import Kind, Recipe, Store
from diffusion_builder.verify import verify

if TYPE_CHECKING:
    from collections.abc import Mapping

_KILLS = 50
_WRITER = """
import sys
from pathlib import Path
from diffusion_builder.store import Kind, Recipe, Store

def write(folder):
    (folder / "sub").mkdir()
    for index in range(20):
        (folder / "sub" / f"{index}.bin").write_bytes(bytes([index]) * 50_000)
    return {"ensembles": []}

store = Store(Path(sys.argv[1]))
print("go", flush=True)
for number in range(100):
    store.publish(Recipe(Kind.REPOSITORY, {"number": number}), write)
"""


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


def test_killed_writers_leave_no_visible_half_artifact(tmp_path: Path) -> None:
    rng = random.Random(1)  # noqa: S311 - moments of killing, no secrets
    environment = os.environ | {"PYTHONPATH": str(Path(store_module.__file__).parents[1])}
    for _ in range(_KILLS):
        command = [sys.executable, "-c", _WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"go\n"
            try:
                process.wait(rng.uniform(0.0, 0.06))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
    store = Store(tmp_path)
    published = list(store.artifacts())
    for artifact in published:
        assert verify(store, artifact).files == 20
    names = {path.name for path in (tmp_path / "repositories").iterdir()}
    hidden = {name for name in names if name.startswith(".tmp-")}
    assert names - hidden == {artifact.manifest.digest for artifact in published}
    assert published
    assert hidden


def test_what_killed_writers_left_is_removed_after_a_grace_time(tmp_path: Path) -> None:
    now = int(time.time())
    old = tmp_path / "onnx" / f".tmp-{now - store_module.STAGING_GRACE_SECONDS - 60}-0-0"
    young = tmp_path / "onnx" / f".tmp-{now - 60}-0-0"
    for folder in (old, young):
        folder.mkdir(parents=True)
    Store(tmp_path).publish(Recipe(Kind.ONNX, {}), _write)
    assert (old.exists(), young.exists()) == (False, True)


def test_missing_space_is_found_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=str(10**18)) as caught:
        Store(tmp_path).publish(Recipe(Kind.ONNX, {}, needed_bytes=10**18), lambda _folder: pytest.fail("written"))
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
        Store(tmp_path).publish(Recipe(Kind.ONNX, {}, needed_bytes=12345), fail)
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
