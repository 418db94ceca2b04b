"""Checkpoints made to run code, to write elsewhere or to exhaust the machine: each is refused, by its own reason.

Every case holds a pickle whose loading, and a module whose import, would leave a canary behind.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from diffusion_builder import sources
from diffusion_builder.errors import BadInputError, ExitCode, Reason
from diffusion_builder.hub import Hub, HubFile, HubReference
from diffusion_builder.layout import MAX_FILES, MAX_TOTAL_BYTES
from diffusion_builder.sources.download import Download
from diffusion_builder.store import Store

_UNET = "unet/diffusion_pytorch_model.safetensors"
_CONFIG = "unet/config.json"
_CANARY = "canary"
# More than a small archive may grow to.
_BOMB = 70 << 20


class Payload:
    """Leaves the canary in the working directory when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (_CANARY, "w")


_PICKLE = pickle.dumps(Payload(), protocol=2)
_CODE = f"from pathlib import Path\nPath({_CANARY!r}).touch()\n".encode()


def _torch_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", _PICKLE)
    return file.getvalue()


def _tensors(header: object, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _one(**changes: object) -> dict[str, object]:
    return {"a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]} | changes}


def _two(first: list[int], second: list[int]) -> dict[str, object]:
    return {
        name: {"dtype": "U8", "shape": [offsets[1] - offsets[0]], "data_offsets": offsets}
        for name, offsets in (("a", first), ("b", second))
    }


def _edit(name: str, **changes: object) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def _put(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def _sparse(name: str, head: bytes, size: int) -> Callable[[Path], object]:
    def put(folder: Path) -> None:
        (folder / name).write_bytes(head)
        os.truncate(folder / name, size)

    return put


def _link(name: str, target: str) -> Callable[[Path], object]:
    def link(folder: Path) -> None:
        if (folder / name).exists():
            (folder / name).unlink()
        (folder / name).symlink_to(target)

    return link


def _fifo(folder: Path) -> None:
    (folder / _CONFIG).unlink()
    os.mkfifo(folder / _CONFIG)


def _shards(**weight_map: object) -> Callable[[Path], object]:
    def put(folder: Path) -> None:
        (folder / _UNET).rename(folder / "unet" / "diffusion_pytorch_model-00001-of-00002.safetensors")
        (folder / f"{_UNET}.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return put


def _only_pickle(folder: Path) -> None:
    (folder / _UNET).unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(_PICKLE)


_Spoil = Callable[[Path], object]
# Case: how it is made, its reason, and what the message names.
_FOLDERS: dict[str, tuple[_Spoil, Reason, str]] = {
    "pickle as safetensors": (_put(_UNET, _PICKLE), Reason.PICKLE_ONLY, _UNET),
    "torch zip as safetensors": (_put(_UNET, _torch_zip()), Reason.PICKLE_ONLY, _UNET),
    "pickle alone": (_only_pickle, Reason.PICKLE_ONLY, "unet"),
    "pickle as configuration": (_put(_CONFIG, _PICKLE), Reason.INVALID_CONFIG, _CONFIG),
    "pickle as text": (_put("tokenizer/merges.txt", _PICKLE), Reason.INVALID_CONFIG, "tokenizer/merges.txt"),
    "binary as text": (_put("tokenizer/merges.txt", b"\xff\xfe"), Reason.INVALID_CONFIG, "tokenizer/merges.txt"),
    "header longer than the file": (_put(_UNET, struct.pack("<Q", 99) + b"{}"), Reason.INVALID_WEIGHTS, _UNET),
    "header of 101 MB": (_sparse(_UNET, struct.pack("<Q", 101_000_000), 102_000_000), Reason.INVALID_WEIGHTS, _UNET),
    "header of 16 EiB": (_put(_UNET, b"\xff" * 16), Reason.INVALID_WEIGHTS, _UNET),
    "five bytes": (_put(_UNET, b"12345"), Reason.INVALID_WEIGHTS, _UNET),
    "empty weights": (_put(_UNET, b""), Reason.INVALID_WEIGHTS, _UNET),
    "overlapping tensors": (_put(_UNET, _tensors(_two([0, 6], [4, 8]))), Reason.INVALID_WEIGHTS, "overlaps"),
    "gap between tensors": (_put(_UNET, _tensors(_two([0, 3], [4, 8]))), Reason.INVALID_WEIGHTS, "gap"),
    "same bytes twice": (_put(_UNET, _tensors(_two([0, 8], [0, 8]))), Reason.INVALID_WEIGHTS, "overlaps"),
    "negative offset": (_put(_UNET, _tensors(_one(data_offsets=[-8, 0]))), Reason.INVALID_WEIGHTS, _UNET),
    "offsets back to front": (_put(_UNET, _tensors(_one(data_offsets=[8, 0]))), Reason.INVALID_WEIGHTS, _UNET),
    "offsets that are truths": (_put(_UNET, _tensors(_one(data_offsets=[False, 8]))), Reason.INVALID_WEIGHTS, _UNET),
    "three offsets": (_put(_UNET, _tensors(_one(data_offsets=[0, 4, 8]))), Reason.INVALID_WEIGHTS, _UNET),
    "offset beyond 64 bits": (_put(_UNET, _tensors(_one(data_offsets=[0, 1 << 70]))), Reason.INVALID_WEIGHTS, _UNET),
    "unknown dtype": (_put(_UNET, _tensors(_one(dtype="OBJECT"))), Reason.INVALID_WEIGHTS, "OBJECT"),
    "dtype that is a list": (_put(_UNET, _tensors(_one(dtype=["U8"]))), Reason.INVALID_WEIGHTS, _UNET),
    "shape larger than its bytes": (_put(_UNET, _tensors(_one(shape=[1 << 40]))), Reason.INVALID_WEIGHTS, "fit"),
    "shape that overflows": (_put(_UNET, _tensors(_one(shape=[1 << 32] * 3))), Reason.INVALID_WEIGHTS, "fit"),
    "shape of fractions": (_put(_UNET, _tensors(_one(shape=[8.0]))), Reason.INVALID_WEIGHTS, _UNET),
    "tensor named twice": (
        _put(_UNET, _tensors(json.dumps(_one()).encode()[:-1] + b", " + json.dumps(_one()).encode()[1:])),
        Reason.INVALID_WEIGHTS, "twice",
    ),
    "bytes after the tensors": (_put(_UNET, _tensors(_one(), bytes(9))), Reason.INVALID_WEIGHTS, "1 bytes follow"),
    "cut off": (_put(_UNET, _tensors(_one(), bytes(7))), Reason.INVALID_WEIGHTS, "cut off"),
    "no tensors": (_put(_UNET, _tensors({}, b"")), Reason.INVALID_WEIGHTS, _UNET),
    "header that is a list": (_put(_UNET, _tensors([1])), Reason.INVALID_WEIGHTS, _UNET),
    "header that is no JSON": (_put(_UNET, _tensors(b"__import__('os')")), Reason.INVALID_WEIGHTS, _UNET),
    "header nested deeply": (_put(_UNET, _tensors(b"[" * 100_000)), Reason.INVALID_WEIGHTS, _UNET),
    "metadata of another kind": (
        _put(_UNET, _tensors(_one() | {"__metadata__": {"a": 1}})), Reason.INVALID_WEIGHTS, "__metadata__",
    ),
    "code by auto_map": (_edit(_CONFIG, auto_map={"AutoModel": "evil.Model"}), Reason.REMOTE_CODE, _CONFIG),
    "code by auto_map inside": (
        _edit("text_encoder/config.json", text_config=[{"auto_map": {"AutoModel": "evil.Model"}}]),
        Reason.REMOTE_CODE, "text_encoder/config.json",
    ),
    "code by a tokenizer": (
        _edit("tokenizer/tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]}),
        Reason.REMOTE_CODE, "tokenizer/tokenizer_config.json",
    ),
    "code by a scheduler": (
        _edit("scheduler/scheduler_config.json", auto_map={}), Reason.REMOTE_CODE, "scheduler/scheduler_config.json",
    ),
    "library of its own": (_edit("model_index.json", unet=["evil", "Model"]), Reason.REMOTE_CODE, "unet"),
    "pipeline of its own": (
        _edit("model_index.json", _class_name=["evil", "Pipeline"]), Reason.UNSUPPORTED_PIPELINE, "evil",
    ),
    "JSON of 65 MB": (_sparse(_CONFIG, b"{}", 65 << 20), Reason.TOO_LARGE, _CONFIG),
    "text of 65 MB": (_sparse("tokenizer/merges.txt", b"", 65 << 20), Reason.TOO_LARGE, "tokenizer/merges.txt"),
    "JSON nested deeply": (_put(_CONFIG, b"[" * 100_000), Reason.INVALID_CONFIG, _CONFIG),
    "JSON with an endless number": (_put(_CONFIG, b'{"a": ' + b"9" * 10_000 + b"}"), Reason.INVALID_CONFIG, _CONFIG),
    "shard elsewhere": (_shards(w="../../../etc/passwd"), Reason.UNSAFE_PATH, f"{_UNET}.index.json"),
    "shard that is a pickle": (_shards(w="weights.bin"), Reason.UNSAFE_PATH, "weights.bin"),
    "shard that is missing": (
        _shards(w="diffusion_pytorch_model-00002-of-00002.safetensors"), Reason.MISSING_FILE, "00002-of-00002",
    ),
    "shards of another kind": (_shards(w=3), Reason.INVALID_CONFIG, f"{_UNET}.index.json"),
    "link to a file elsewhere": (_link(_CONFIG, "/etc/passwd"), Reason.UNSAFE_PATH, _CONFIG),
    "link to a folder elsewhere": (_link("more", "/etc"), Reason.UNSAFE_PATH, "more"),
    "pipe instead of a file": (_fifo, Reason.MISSING_FILE, "config.json"),
    "names that differ in case": (_put("unet/Config.JSON", b"{}"), Reason.UNSAFE_PATH, "unet/Config.JSON"),
    "name that is not UTF-8": (
        lambda folder: Path(os.fsdecode(bytes(folder) + b"/unet/\xff.json")).write_text("{}"),
        Reason.UNSAFE_PATH, "\\udcff",
    ),
    "name that controls a terminal": (_put("unet/\x1b[2J.json", b"{}"), Reason.UNSAFE_PATH, "x1b"),
    "name with a backslash": (_put("unet/..\\evil", b"{}"), Reason.UNSAFE_PATH, "evil"),
}  # fmt: skip


@dataclass
class Member:
    """An entry of a tar file."""

    name: str
    content: bytes = b""
    type: bytes = tarfile.REGTYPE
    link: str = ""
    size: int | None = None


def _tar(*members: Member, folder: Path | None = None) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", encoding="utf-8") as archive:
        if folder:
            archive.add(folder, arcname="")
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.type, info.linkname, info.size = member.type, member.link, len(member.content)
            archive.addfile(info, io.BytesIO(member.content))
    return file.getvalue()


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header that says more than there is."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def _zip(
    folder: Path, files: Mapping[str, bytes] | None = None, change: Callable[[zipfile.ZipInfo], object] | None = None
) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
        for name, content in (files or {}).items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if change:
                change(info)
            archive.writestr(info, content)
    return file.getvalue()


def _stored_zip(folder: Path) -> bytes:
    """Plain bytes inside, so that one of them can be changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, path.relative_to(folder).as_posix())
    content = bytearray(file.getvalue())
    content[content.index(b"StableDiffusionPipeline")] ^= 1
    return bytes(content)


def _many_in_zip(folder: Path) -> bytes:
    return _zip(folder, {f"x{number}": b"" for number in range(MAX_FILES)})


def _symlink(info: zipfile.ZipInfo) -> None:
    info.external_attr = (stat.S_IFLNK | 0o777) << 16


def _method(info: zipfile.ZipInfo) -> None:
    info.compress_type = zipfile.ZIP_BZIP2


def _encrypted(folder: Path) -> bytes:
    content = bytearray(_zip(folder))
    at = content.rindex(b"PK\x01\x02")
    content[at + 8] |= 1
    return bytes(content)


def _nul_name(folder: Path) -> bytes:
    return _zip(folder, {"evil.json#py": b"{}"}).replace(b"evil.json#py", b"evil.json\0py")


def _huge_pax(folder: Path) -> bytes:
    """A bomb in what libraries read as one piece, before any member."""
    return gzip.compress(_header("pax", 8 << 20, tarfile.XHDTYPE) + bytes(8 << 20) + _tar(folder=folder), 1)


_Pack = Callable[[Path], bytes]
_ARCHIVES: dict[str, tuple[_Pack, Reason, str]] = {
    "tar: name that leads out": (lambda f: _tar(Member("../evil"), folder=f), Reason.UNSAFE_PATH, "../evil"),
    "tar: hidden way out": (lambda f: _tar(Member("unet/../../evil"), folder=f), Reason.UNSAFE_PATH, "../evil"),
    "tar: absolute name": (lambda f: _tar(Member("/tmp/evil"), folder=f), Reason.UNSAFE_PATH, "/tmp/evil"),  # noqa: S108
    "tar: folder that leads out": (
        lambda f: _tar(Member("../evil/", type=tarfile.DIRTYPE), folder=f), Reason.UNSAFE_PATH, "../evil",
    ),
    "tar: symbolic link": (
        lambda f: _tar(Member("evil", type=tarfile.SYMTYPE, link="/etc"), folder=f), Reason.UNSAFE_PATH, "'evil'",
    ),
    "tar: link, then a file through it": (
        lambda f: _tar(Member("evil", type=tarfile.SYMTYPE, link="/tmp"), Member("evil/x", b"x"), folder=f),  # noqa: S108
        Reason.UNSAFE_PATH, "'evil'",
    ),
    "tar: hard link": (
        lambda f: _tar(Member("evil", type=tarfile.LNKTYPE, link="../../etc/passwd"), folder=f),
        Reason.UNSAFE_PATH, "'evil'",
    ),
    "tar: device": (lambda f: _tar(Member("evil", type=tarfile.CHRTYPE), folder=f), Reason.UNSAFE_PATH, "'evil'"),
    "tar: disk": (lambda f: _tar(Member("evil", type=tarfile.BLKTYPE), folder=f), Reason.UNSAFE_PATH, "'evil'"),
    "tar: pipe": (lambda f: _tar(Member("evil", type=tarfile.FIFOTYPE), folder=f), Reason.UNSAFE_PATH, "'evil'"),
    "tar: name that is not UTF-8": (lambda f: _tar(Member("\udcff"), folder=f), Reason.UNSAFE_PATH, "udcff"),
    "tar: name with a backslash": (lambda f: _tar(Member("..\\evil"), folder=f), Reason.UNSAFE_PATH, "evil"),
    "tar: names that differ in case": (
        lambda f: _tar(Member("UNET/config.json", b"{}"), folder=f), Reason.UNSAFE_PATH, "UNET/config.json",
    ),
    "tar: the same name twice": (
        lambda f: _tar(Member("model_index.json", b"{}"), folder=f), Reason.UNSAFE_PATH, "'model_index.json'",
    ),
    "tar: file that is also a folder": (
        lambda f: _tar(Member("unet", b"x"), folder=f), Reason.UNSAFE_PATH, "unet",
    ),
    "tar: name of a kilobyte": (lambda f: _tar(Member("a" * 1100), folder=f), Reason.UNSAFE_PATH, "aaa"),
    "tar: too many files": (
        lambda f: _tar(*(Member(f"x{n}") for n in range(MAX_FILES)), folder=f), Reason.TOO_LARGE, str(MAX_FILES),
    ),
    "tar: file of a TiB": (lambda _f: _header("evil", 1 << 40), Reason.TOO_LARGE, "'evil'"),
    "tar: bomb": (
        lambda _f: gzip.compress(_header("evil", _BOMB) + bytes(_BOMB), 1), Reason.TOO_LARGE, "'evil'",
    ),
    "tar: bomb in a header": (_huge_pax, Reason.TOO_LARGE, "a header of more"),
    "tar: cut off": (lambda f: _tar(folder=f)[:3000], Reason.INVALID_ARCHIVE, "no sound"),
    "tar.gz: cut off": (lambda f: gzip.compress(_tar(folder=f))[:-20], Reason.INVALID_ARCHIVE, "no sound"),
    "tar.gz: damaged": (
        lambda f: gzip.compress(_tar(folder=f))[:300] + bytes(2000), Reason.INVALID_ARCHIVE, "no sound",
    ),
    "no archive": (lambda _f: _PICKLE * 100, Reason.INVALID_ARCHIVE, "no sound"),
    "nothing": (lambda _f: b"", Reason.INVALID_ARCHIVE, "no sound"),
    "zip: name that leads out": (lambda f: _zip(f, {"../evil": b"x"}), Reason.UNSAFE_PATH, "../evil"),
    "zip: absolute name": (lambda f: _zip(f, {"/tmp/evil": b"x"}), Reason.UNSAFE_PATH, "/tmp/evil"),  # noqa: S108
    "zip: name with NUL": (_nul_name, Reason.UNSAFE_PATH, "evil.json"),
    "zip: symbolic link": (lambda f: _zip(f, {"evil": b"/etc"}, _symlink), Reason.UNSAFE_PATH, "'evil'"),
    "zip: names that differ in case": (lambda f: _zip(f, {"VAE/config.json": b"{}"}), Reason.UNSAFE_PATH, "VAE"),
    "zip: bomb": (lambda f: _zip(f, {"evil": bytes(_BOMB)}), Reason.TOO_LARGE, "'evil'"),
    "zip: too many files": (_many_in_zip, Reason.TOO_LARGE, str(MAX_FILES)),
    "zip: unusual compression": (lambda f: _zip(f, {"evil": b"x"}, _method), Reason.INVALID_ARCHIVE, "'evil'"),
    "zip: encrypted": (_encrypted, Reason.INVALID_ARCHIVE, "vae/"),
    "zip: wrong sum": (_stored_zip, Reason.INVALID_ARCHIVE, "model_index.json"),
    "zip: cut off": (lambda f: _zip(f)[:-30], Reason.INVALID_ARCHIVE, "no sound"),
    "pickle in a tar": (
        lambda f: (_put(_UNET, _PICKLE)(f), _tar(folder=f))[1], Reason.PICKLE_ONLY, _UNET,
    ),
    "code in a zip": (
        lambda f: (_edit(_CONFIG, auto_map={"AutoModel": "evil.Model"})(f), _zip(f))[1], Reason.REMOTE_CODE, _CONFIG,
    ),
}  # fmt: skip

_LISTINGS: dict[str, tuple[Mapping[str, int], Reason, str]] = {
    "hub: name that leads out": ({"../evil": 1}, Reason.UNSAFE_PATH, "../evil"),
    "hub: absolute name": ({"/etc/evil": 1}, Reason.UNSAFE_PATH, "/etc/evil"),
    "hub: name with NUL": ({"evil\0.json": 1}, Reason.UNSAFE_PATH, "evil"),
    "hub: empty name": ({"": 1}, Reason.UNSAFE_PATH, "''"),
    "hub: name with a point": ({"./unet//config.json": 1}, Reason.UNSAFE_PATH, "./unet"),
    "hub: names that differ in case": ({"Model_Index.json": 1}, Reason.UNSAFE_PATH, "Model_Index.json"),
    "hub: names that look the same": ({"\u00e9.json": 1, "e\u0301.json": 1}, Reason.UNSAFE_PATH, "e\u0301.json"),
    "hub: too many files": ({f"x{n}": 1 for n in range(MAX_FILES)}, Reason.TOO_LARGE, str(MAX_FILES)),
    "hub: weights beyond any model": ({_UNET: MAX_TOTAL_BYTES}, Reason.TOO_LARGE, "the checkpoint"),
    "hub: JSON of a GiB": ({_CONFIG: 1 << 30}, Reason.TOO_LARGE, _CONFIG),
}


class Local(Download):
    """A download that brings bytes which a test has made."""

    def run(self, target: Path, on_file: Callable[[str, float], None], on_size: Callable[[int], None]) -> None:
        del on_file, on_size
        target.write_bytes(Path(self.url.removeprefix("http://local")).read_bytes())


class Listing(Hub):
    """A hub that says what a test wants; asked for weights it fails."""

    def __init__(self, folder: Path, more: Mapping[str, int]) -> None:
        self.endpoint = "http://hub"
        self._folder, self._more = folder, more

    def files(self, reference: HubReference) -> Mapping[str, HubFile]:
        del reference
        found = (path for path in self._folder.rglob("*") if path.is_file())
        sizes = {path.relative_to(self._folder).as_posix(): path.stat().st_size for path in found}
        return {name: HubFile(size) for name, size in (sizes | dict(self._more)).items()}

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
    (checkpoint / "unet" / "evil.py").write_bytes(_CODE)
    (checkpoint / "evil.py").write_bytes(_CODE)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.syspath_prepend(str(checkpoint))
    return checkpoint


def _refused(tmp_path: Path, fetch: Callable[[Store], object], reason: Reason, says: str) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(BadInputError) as caught:
        fetch(store)
    assert (caught.value.reason, caught.value.exit_code) == (reason, ExitCode.BAD_INPUT)
    assert says in caught.value.message
    assert not list((tmp_path / "work").iterdir()), "code of the checkpoint was run"
    assert not list((tmp_path / "store").glob("*/*")), "something was left in the store"
    assert {path.name for path in tmp_path.iterdir()} <= {"work", "store", "checkpoint", "archive"}


@pytest.mark.parametrize("case", _FOLDERS)
def test_hostile_folder_is_refused_with_its_reason(trap: Path, tmp_path: Path, case: str) -> None:
    spoil, reason, says = _FOLDERS[case]
    spoil(trap)
    _refused(tmp_path, lambda store: sources.from_folder(store, trap, _ignore), reason, says)


@pytest.mark.parametrize("case", _ARCHIVES)
def test_hostile_archive_is_refused_with_its_reason(trap: Path, tmp_path: Path, case: str) -> None:
    pack, reason, says = _ARCHIVES[case]
    (tmp_path / "archive").write_bytes(pack(trap))
    download = Local(f"http://local{tmp_path / 'archive'}", "0" * 64)
    _refused(tmp_path, lambda store: sources.from_archive(store, download, _ignore), reason, says)


@pytest.mark.parametrize("case", _LISTINGS)
def test_hostile_listing_of_a_hub_is_refused_before_any_weights(trap: Path, tmp_path: Path, case: str) -> None:
    more, reason, says = _LISTINGS[case]
    reference = HubReference("a/b", "0" * 40)
    _refused(
        tmp_path, lambda store: sources.from_hub(store, lambda: Listing(trap, more), reference, _ignore), reason, says
    )


def test_the_trap_would_have_closed(trap: Path, tmp_path: Path) -> None:
    canary = tmp_path / "work" / _CANARY
    assert trap.exists()
    pickle.loads(_PICKLE).close()  # noqa: S301 - ours
    assert canary.exists()
    canary.unlink()
    __import__("evil")
    assert canary.exists()


def test_the_untouched_checkpoint_is_taken_in_every_way(trap: Path, tmp_path: Path) -> None:
    components: list[Any] = [sources.from_folder(Store(tmp_path / "store"), trap, _ignore)[0].manifest.extra]
    for pack in (_zip, lambda f: _tar(folder=f), lambda f: gzip.compress(_tar(folder=f))):
        (tmp_path / "archive").write_bytes(pack(trap))
        download = Local(f"http://local{tmp_path / 'archive'}", f"{len(components)}" * 64)
        components.append(sources.from_archive(Store(tmp_path / "store"), download, _ignore)[0].manifest.extra)
    assert all(item == components[0] for item in components)
    taken = {path.suffix for path in (tmp_path / "store" / "sources").rglob("*") if path.is_file()}
    assert taken == {".json", ".txt", ".safetensors"}
    assert not list((tmp_path / "work").iterdir())
