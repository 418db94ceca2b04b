"""Checkpoints made to run code, to write elsewhere or to exhaust the machine: each is rejected, by its own reason.

Every case holds a pickle whose loading, and a module whose import, would leave a canary behind.
"""

from __future__ import annotations

import gzip
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from diffusion_builder import sources
from diffusion_builder.errors import BadInputError, ExitCode, Reason
from diffusion_builder.sources.hub import Hub, HubFile, HubReference
from diffusion_builder.sources.names import MAX_FILES, MAX_TOTAL_BYTES
from diffusion_builder.store import Store
from tests.support.builder.hostile_archives import ARCHIVES, LocalArchive, tar_file, zip_file
from tests.support.builder.hostile_folders import CANARY, CODE, CONFIG, FOLDERS, PICKLE, UNET

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_LISTINGS: dict[str, tuple[Mapping[str, int], Reason, str]] = {
    "hub: name that leads out": ({"../evil": 1}, Reason.UNSAFE_PATH, "../evil"),
    "hub: absolute name": ({"/etc/evil": 1}, Reason.UNSAFE_PATH, "/etc/evil"),
    "hub: name with NUL": ({"evil\0.json": 1}, Reason.UNSAFE_PATH, "evil"),
    "hub: empty name": ({"": 1}, Reason.UNSAFE_PATH, "''"),
    "hub: name with a point": ({"./unet//config.json": 1}, Reason.UNSAFE_PATH, "./unet"),
    "hub: names that differ in case": ({"Model_Index.json": 1}, Reason.UNSAFE_PATH, "Model_Index.json"),
    # The Kelvin sign is a k where case does not count.
    "hub: names that look the same": (
        {"to\u212aenizer/merges.txt": 1},
        Reason.UNSAFE_PATH,
        "to\u212aenizer/merges.txt",
    ),
    "hub: too many files": ({f"x{n}": 1 for n in range(MAX_FILES)}, Reason.TOO_LARGE, str(MAX_FILES)),
    "hub: weights beyond any model": ({UNET: MAX_TOTAL_BYTES}, Reason.TOO_LARGE, "the checkpoint"),
    "hub: JSON of a GiB": ({CONFIG: 1 << 30}, Reason.TOO_LARGE, CONFIG),
}


class Listing(Hub):
    """A hub that says what a test wants; asked for weights it fails."""

    def __init__(self, folder: Path, extra_sizes: Mapping[str, int]) -> None:
        self.endpoint = "http://hub"
        self._folder, self._extra_sizes = folder, extra_sizes

    def files(self, reference: HubReference) -> Mapping[str, HubFile]:
        del reference
        paths = (path for path in self._folder.rglob("*") if path.is_file())
        sizes = {path.relative_to(self._folder).as_posix(): path.stat().st_size for path in paths}
        return {name: HubFile(size) for name, size in (sizes | dict(self._extra_sizes)).items()}

    def download(self, reference: HubReference, name: str, target: Path) -> None:
        del reference
        assert name.endswith(".json"), "a listing like this must cost no weights"
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes((self._folder / name).read_bytes())


def _ignore(_name: str, _fraction: float) -> None:
    return None


@pytest.fixture
def trap(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint with code beside its files, in a process that has it on its path; returns the checkpoint."""
    (checkpoint / "unet" / "evil.py").write_bytes(CODE)
    (checkpoint / "evil.py").write_bytes(CODE)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.syspath_prepend(str(checkpoint))
    return checkpoint


def _rejected(tmp_path: Path, fetch: Callable[[Store], object], reason: Reason, says: str) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(BadInputError) as caught:
        fetch(store)
    assert (caught.value.reason, caught.value.exit_code) == (reason, ExitCode.BAD_INPUT)
    assert says in caught.value.message
    assert not list((tmp_path / "work").iterdir()), "code of the checkpoint was run"
    assert not list((tmp_path / "store").glob("*/*")), "something was left in the store"
    assert {path.name for path in tmp_path.iterdir()} <= {"work", "store", "checkpoint", "archive"}


@pytest.mark.parametrize("case", FOLDERS)
def test_hostile_folder_is_rejected_with_its_reason(trap: Path, tmp_path: Path, case: str) -> None:
    corrupt, reason, says = FOLDERS[case]
    corrupt(trap)
    _rejected(tmp_path, lambda store: sources.from_folder(store, trap, _ignore), reason, says)


@pytest.mark.parametrize("case", ARCHIVES)
def test_hostile_archive_is_rejected_with_its_reason(trap: Path, tmp_path: Path, case: str) -> None:
    pack, reason, says = ARCHIVES[case]
    (tmp_path / "archive").write_bytes(pack(trap))
    download = LocalArchive(f"http://local{tmp_path / 'archive'}", "0" * 64)
    _rejected(tmp_path, lambda store: sources.from_archive(store, download, _ignore), reason, says)


@pytest.mark.parametrize("case", _LISTINGS)
def test_hostile_listing_of_a_hub_is_rejected_before_any_weights(trap: Path, tmp_path: Path, case: str) -> None:
    extra_sizes, reason, says = _LISTINGS[case]
    reference = HubReference("a/b", "0" * 40)
    _rejected(
        tmp_path,
        lambda store: sources.from_hub(store, lambda: Listing(trap, extra_sizes), reference, _ignore),
        reason,
        says,
    )


def test_the_trap_would_have_closed(trap: Path, tmp_path: Path) -> None:
    canary = tmp_path / "work" / CANARY
    assert trap.exists()
    pickle.loads(PICKLE).close()  # noqa: S301 - ours
    assert canary.exists()
    canary.unlink()
    __import__("evil")
    assert canary.exists()


def test_the_untouched_checkpoint_is_taken_in_every_way(trap: Path, tmp_path: Path) -> None:
    components: list[Any] = [sources.from_folder(Store(tmp_path / "store"), trap, _ignore)[0].manifest.extra]
    for pack in (zip_file, lambda f: tar_file(folder=f), lambda f: gzip.compress(tar_file(folder=f))):
        (tmp_path / "archive").write_bytes(pack(trap))
        download = LocalArchive(f"http://local{tmp_path / 'archive'}", f"{len(components)}" * 64)
        components.append(sources.from_archive(Store(tmp_path / "store"), download, _ignore)[0].manifest.extra)
    assert all(item == components[0] for item in components)
    suffixes = {path.suffix for path in (tmp_path / "store" / "sources").rglob("*") if path.is_file()}
    assert suffixes == {".json", ".txt", ".safetensors"}
    assert not list((tmp_path / "work").iterdir())
