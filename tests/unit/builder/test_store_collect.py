"""Collection deletes what nobody needs, and only that."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from diffusion_builder.errors import BadInputError, Reason, StoreError
from diffusion_builder.store import Artifact, Kind, Recipe, Store
from diffusion_builder.store.garbage_collection import (
    CollectionResult,
    Entry,
    GarbageCollectionOptions,
    collect,
    reachable,
)
from diffusion_builder.store.verification import verify_store

if TYPE_CHECKING:
    from collections.abc import Mapping

_DAY = 86400.0
_NOW = 1_800_000_000.0


class Moment:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = _NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Moment:
    return Moment()


@pytest.fixture
def store(tmp_path: Path, clock: Moment) -> Store:
    return Store(tmp_path, clock)


def _make(store: Store, kind: Kind, name: str, *derived_from: Artifact) -> Artifact:
    def write(folder: Path) -> Mapping[str, Any]:
        (folder / "file").write_text(name * 10)
        return {"target": "cpu", "runtimeVersion": name}

    return store.publish(Recipe(kind, {"name": name}, derived_from=derived_from), write)[0]


def _repository(store: Store, name: str, engine: Artifact) -> Artifact:
    """A repository that only links, as one of an older builder does."""

    def write(folder: Path) -> Mapping[str, Any]:
        (folder / "link").symlink_to(f"../../engines/{engine.manifest.digest}/file")
        return {}

    return store.publish(Recipe(Kind.REPOSITORY, {"name": name}), write)[0]


def _chain(store: Store, name: str) -> tuple[Artifact, ...]:
    source = _make(store, Kind.SOURCE, name)
    onnx = _make(store, Kind.ONNX, name, source)
    engine = _make(store, Kind.ENGINE, name, onnx)
    return source, onnx, engine, _repository(store, name, engine)


def _present(store: Store) -> set[str]:
    return {artifact.manifest.digest for artifact in store.artifacts()}


def _names(artifacts: tuple[Artifact, ...]) -> set[str]:
    return {artifact.manifest.digest for artifact in artifacts}


def _collect(store: Store, *keep: Artifact, grace: float = _DAY, dry_run: bool = False) -> CollectionResult:
    return collect(store, GarbageCollectionOptions(tuple(item.manifest.digest for item in keep), grace, dry_run))


def test_a_kept_repository_keeps_all_that_it_was_made_from(store: Store, clock: Moment) -> None:
    retained, dropped = _chain(store, "kept"), _chain(store, "dropped")
    clock.now += 2 * _DAY
    collected = _collect(store, retained[-1])
    assert _present(store) == _names(retained)
    assert {entry.digest for entry in collected.deleted} == _names(dropped)
    assert (collected.retained, collected.size) == (4, sum(item.manifest.size for item in dropped))
    assert not list(store.root.rglob(".tmp-*"))
    assert _names(dropped).isdisjoint(path.name for path in (store.root / "uses").iterdir())


def test_what_is_shared_stays_as_long_as_one_needs_it(store: Store, clock: Moment) -> None:
    source = _make(store, Kind.SOURCE, "s")
    one, two = (_make(store, Kind.ONNX, name, source) for name in "ab")
    clock.now += 2 * _DAY
    _collect(store, one)
    assert _present(store) == _names((source, one))
    assert two.manifest.digest not in _present(store)


def test_a_dry_run_tells_the_bytes_and_deletes_nothing(store: Store, clock: Moment) -> None:
    chain = _chain(store, "x")
    clock.now += 2 * _DAY
    collected = _collect(store, dry_run=True)
    assert (collected.size, collected.retained) == (sum(item.manifest.size for item in chain), 0)
    assert _present(store) == _names(chain)


def test_what_was_made_lately_stays_with_all_it_needs(store: Store, clock: Moment) -> None:
    chain = _chain(store, "x")[:3]
    clock.now += 2 * _DAY
    young = _repository(store, "young", chain[-1])
    _collect(store)
    assert _present(store) == _names((*chain, young))


@pytest.mark.parametrize("ask", ["get", "publish"])
def test_what_a_build_has_just_found_stays(store: Store, clock: Moment, ask: str) -> None:
    artifact = _make(store, Kind.ONNX, "x")
    clock.now += 2 * _DAY
    if ask == "get":
        store.get(Kind.ONNX, artifact.manifest.digest)
    else:
        _make(store, Kind.ONNX, "x")
    clock.now += _DAY / 2
    _collect(store)
    assert _present(store) == _names((artifact,))
    clock.now += _DAY
    _collect(store)
    assert _present(store) == set()


def test_what_is_asked_for_while_it_is_being_deleted_comes_back(
    store: Store, clock: Moment, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = _make(store, Kind.ONNX, "x")
    clock.now += 2 * _DAY
    rename = Path.rename

    def asked_meanwhile(path: Path, target: Path) -> Path:
        if path == artifact.path:
            # The reader has found it, and now marks it, just before it goes.
            store.use(Kind.ONNX, artifact.manifest.digest)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", asked_meanwhile)
    assert _collect(store).deleted == ()
    assert _present(store) == _names((artifact,))


def test_who_asks_too_late_is_told_that_it_is_gone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = _make(store, Kind.ONNX, "x")
    find = Store.find

    def then_it_goes(self: Store, kind: Kind, digest: str) -> Artifact | None:
        artifact = find(self, kind, digest)
        if artifact:
            artifact.path.rename(self.root / "elsewhere")
        return artifact

    monkeypatch.setattr(Store, "find", then_it_goes)
    assert store.use(Kind.ONNX, artifact.manifest.digest) is None


def test_a_kept_artifact_with_a_damaged_manifest_stops_collection(store: Store, clock: Moment) -> None:
    retained, other = _chain(store, "kept"), _chain(store, "other")
    (retained[2].path / "manifest.json").write_text("{")
    clock.now += 2 * _DAY
    with pytest.raises(StoreError, match="nothing was deleted") as caught:
        _collect(store, retained[-1])
    assert caught.value.reason is Reason.ARTIFACT_DAMAGED
    assert all(item.path.exists() for item in (*retained, *other))


def test_a_damaged_artifact_that_nobody_keeps_goes(store: Store, clock: Moment) -> None:
    chain = _chain(store, "x")
    (chain[0].path / "manifest.json").unlink()
    clock.now += 2 * _DAY
    _collect(store)
    assert not any(item.path.exists() for item in chain)


def test_a_typing_error_deletes_nothing(store: Store, clock: Moment) -> None:
    artifact = _make(store, Kind.ONNX, "x")
    clock.now += 2 * _DAY
    for keep in ("0" * 12, "xyz", "", artifact.manifest.digest.upper()):
        with pytest.raises(BadInputError):
            collect(store, GarbageCollectionOptions((keep,), 0.0))
    assert _present(store) == _names((artifact,))
    collect(store, GarbageCollectionOptions((artifact.manifest.digest[:12],), 0.0))
    assert _present(store) == _names((artifact,))


def test_a_full_digest_that_is_not_there_is_told(store: Store) -> None:
    assert collect(store, GarbageCollectionOptions(("0" * 64,), 0.0)).missing == ("0" * 64,)


def test_timing_caches_go_only_when_asked(store: Store, clock: Moment) -> None:
    engine = _make(store, Kind.ENGINE, "10.6")
    folder = store.root / "timing"
    folder.mkdir()
    for name in ("cpu-10.6", "cpu-9.0"):
        (folder / name).write_text("cache")
    clock.now += 2 * _DAY
    _collect(store, engine)
    assert len(list(folder.iterdir())) == 2
    collected = collect(store, GarbageCollectionOptions((engine.manifest.digest,), 0.0, timing=True))
    assert (collected.timing, [path.name for path in folder.iterdir()]) == (("cpu-9.0",), ["cpu-10.6"])


def test_references_may_lead_nowhere_or_in_circles() -> None:
    def entry(digest: str, *references: str) -> Entry:
        return Entry(Kind.ONNX, digest, 0, frozenset(references), 0.0)

    entries = {"a": entry("a", "b", "gone"), "b": entry("b", "a"), "c": entry("c")}
    assert reachable(entries, {"a"}) == {"a", "b"}


_COLLECTOR = """
import sys
from pathlib import Path
from diffusion_builder.store import Store
from diffusion_builder.store.garbage_collection import GarbageCollectionOptions, collect
print("go", flush=True)
while True:
    collect(Store(Path(sys.argv[1])), GarbageCollectionOptions((sys.argv[2],), 0.0))
"""


def test_collection_without_any_grace_beside_writers_shows_no_half_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    retained = _chain(store, "kept")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _COLLECTOR, str(tmp_path), retained[-1].manifest.digest]
    deadline, lost = time.monotonic() + 60, 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            while lost < 5 and time.monotonic() < deadline:
                try:
                    _make(store, Kind.ONNX, "other")
                except BadInputError as error:
                    # Deleted between publishing and reading: only a grace of nothing can do that.
                    assert error.reason is Reason.ARTIFACT_NOT_FOUND  # noqa: PT017 - it does not always happen
                lost += store.find(Kind.ONNX, Recipe(Kind.ONNX, {"name": "other"}).digest) is None
                assert (retained[-1].path / "link").read_text() == "kept" * 10
        finally:
            process.kill()
    assert lost == 5
    assert [damage for damage in verify_store(store).damages if "gone" not in damage.problem] == []


def test_a_check_stays_as_long_as_its_repository(store: Store, clock: Moment) -> None:
    retained, other = _make(store, Kind.REPOSITORY, "kept"), _make(store, Kind.REPOSITORY, "other")
    parity, old = _make(store, Kind.PARITY, "parity", retained), _make(store, Kind.PARITY, "old", other)
    clock.now += 2 * _DAY
    collect(store, GarbageCollectionOptions((retained.manifest.digest,), _DAY))
    assert {digest for _, digest in store.names()} == {retained.manifest.digest, parity.manifest.digest}
    assert not old.path.exists()
