"""Read untrusted tar, tar.gz and zip files: regular files only, with limits on everything.

Nothing is extracted by the libraries' own extraction: names, kinds and sizes are validated first, and the bytes of the
selected files are copied to generated names.
"""

from __future__ import annotations

import gzip
import stat
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, TypeVar

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.sources import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from diffusion_builder.sources.origins import Origin

_Member = TypeVar("_Member")
_CHUNK = 1 << 20
# Libraries read some structures (pax headers, a zip's directory) as one piece, as large as the file says.
_MAX_PIECE = 4 << 20
# Weights hardly compress: what grows more than this is made to fill a disk.
_MAX_RATIO = 100
_ALWAYS_ALLOWED_BYTES = 64 << 20
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 0x1
# Where macOS keeps the attributes of the files that it packs.
_MACOS = "__MACOSX/"
_KINDS: Mapping[bytes, str] = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}
# What the libraries raise for content that is not as it should be; ValueError is also struct's and codecs' base.
_DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, KeyError,
    gzip.BadGzipFile,
)  # fmt: skip


class ArchiveOrigin:
    """An archive that was validated; a single top folder around everything is left away."""

    def __init__(self, name: str, sizes: Mapping[str, int], copy: Callable[[str, Path], None]) -> None:
        top = _top(sizes)
        self._name = name
        self._inside = {entry.removeprefix(top): entry for entry in sizes if entry.startswith(top)}
        self._copy = copy
        self.sizes: Mapping[str, int] = {inner: sizes[entry] for inner, entry in self._inside.items()}

    def ordered(self, entries: Iterable[str]) -> Sequence[str]:
        """As in the archive: going back in a compressed one means to start again."""
        selected = set(entries)
        return [name for name in self._inside if name in selected]

    def copy(self, name: str, target: Path) -> None:
        """Copy the content alone: no owner, mode or times."""
        with _readable(self._name):
            self._copy(self._inside[name], target)


@contextmanager
def open_archive(path: Path, name: str) -> Iterator[Origin]:
    """Open and validate an archive.

    Args:
        path: the file.
        name: its name in messages.

    Raises:
        BadInputError: it is no archive, damaged, too large, or holds anything but files and folders.
        OSError: it cannot be read.
    """
    limit = min(names.MAX_TOTAL_BYTES, max(_ALWAYS_ALLOWED_BYTES, path.stat().st_size * _MAX_RATIO))
    with path.open("rb") as stream:
        head = stream.read(512)
        stream.seek(0)
        if head.startswith(b"PK"):
            with _readable(name):
                archive = zipfile.ZipFile(_LimitedStream(stream, name, names.MAX_TOTAL_BYTES))
            with archive:
                yield _zip(archive, name, limit)
        elif head.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=stream) as plain:
                yield _tar(plain, name, limit)
        else:
            yield _tar(stream, name, limit)


class _LimitedStream:
    """A stream that gives neither large pieces at once nor more than a limit in all."""

    def __init__(self, stream: IO[bytes], name: str, limit: int) -> None:
        self._stream, self._name, self._limit = stream, name, limit

    def read(self, size: int = -1) -> bytes:
        piece = self._stream.read(min(size, _MAX_PIECE + 1) if size >= 0 else _MAX_PIECE + 1)
        if len(piece) > _MAX_PIECE:
            raise _too_large(self._name, f"it holds a header of more than {_MAX_PIECE} bytes")
        if self._stream.tell() > self._limit:
            raise _too_large(self._name, f"it grows beyond {self._limit} bytes")
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        return None


def _tar(stream: IO[bytes] | gzip.GzipFile, name: str, limit: int) -> ArchiveOrigin:
    members: dict[str, tarfile.TarInfo] = {}
    total = 0
    with _readable(name):
        careful = _LimitedStream(stream, name, limit)  # type: ignore[arg-type] # GzipFile reads as a stream does
        # It owns nothing that must be closed: the stream is the caller's.
        archive = tarfile.open(fileobj=careful, mode="r:", encoding="utf-8")  # type: ignore[call-overload] # noqa: SIM115
        for member in archive:
            # Before the next header is looked for, which reads what is in between.
            total += member.size
            if total > limit:
                raise _too_large(name, f"up to {member.name!r} it holds {total} bytes, {limit} are allowed")
            entry = _plain_name(member.name)
            if member.isdir():
                names.check_path(entry or "folder")
                continue
            if not member.isreg() or member.issparse():
                kind = _KINDS.get(member.type, "no plain file")
                raise BadInputError(
                    Reason.UNSAFE_PATH,
                    f"{name} holds {member.name!r}, which is {kind}: only files and folders are taken",
                )
            _add(name, members, entry, member)

    def copy(entry: str, target: Path) -> None:
        source = archive.extractfile(members[entry])
        if source is not None:
            with source:
                _copy(source, target, members[entry].size, entry)

    return ArchiveOrigin(name, {entry: member.size for entry, member in members.items()}, copy)


def _zip(archive: zipfile.ZipFile, name: str, limit: int) -> ArchiveOrigin:
    members: dict[str, zipfile.ZipInfo] = {}
    total = 0
    for member in archive.infolist():
        # The library cuts a name at NUL; what it was is validated. Some Windows programs pack with backslashes.
        entry = _plain_name(member.orig_filename.replace("\\", "/"))
        if member.is_dir() or member.orig_filename.endswith("\\"):
            names.check_path(entry)
            continue
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            what = "a symbolic link" if kind == stat.S_IFLNK else "no plain file"
            raise BadInputError(
                Reason.UNSAFE_PATH, f"{name} holds {entry!r}, which is {what}: only files and folders are taken"
            )
        if member.flag_bits & _ENCRYPTED or member.compress_type not in _METHODS:
            raise BadInputError(
                Reason.INVALID_ARCHIVE, f"{name} holds {entry!r} encrypted or compressed in an unusual way: use deflate"
            )
        total += member.file_size
        if total > limit:
            raise _too_large(name, f"up to {entry!r} it grows to {total} bytes, {limit} are allowed")
        _add(name, members, entry, member)

    def copy(entry: str, target: Path) -> None:
        with archive.open(members[entry]) as source:
            _copy(source, target, members[entry].file_size, entry)

    return ArchiveOrigin(name, {entry: member.file_size for entry, member in members.items()}, copy)


def _add(name: str, members: dict[str, _Member], entry: str, member: _Member) -> None:
    names.check_path(entry)
    if entry in members:
        raise BadInputError(Reason.UNSAFE_PATH, f"{name} holds {entry!r} twice: it is unclear which is meant")
    members[entry] = member
    names.check_count(len(members))


def _copy(source: IO[bytes], target: Path, size: int, entry: str) -> None:
    copied = 0
    with target.open("xb") as stream:
        while piece := source.read(_CHUNK):
            copied += stream.write(piece)
    if copied != size:
        raise EOFError(f"{entry} ends after {copied} of {size} bytes")


def _plain_name(name: str) -> str:
    """`./a` and `a/` are common and harmless."""
    while name.startswith("./"):
        name = name[2:]
    return name.rstrip("/") if name not in ("/", ".") else ""


def _top(entries: Iterable[str]) -> str:
    """`folder/` when everything lies in one folder, but for what desktops put beside it; else nothing."""
    proper = (entry for entry in entries if not entry.startswith((".", _MACOS)))
    tops = {entry.partition("/")[0] if "/" in entry else "" for entry in proper}
    return f"{tops.pop()}/" if len(tops) == 1 and "" not in tops else ""


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise BadInputError(
            Reason.INVALID_ARCHIVE, f"{name} is no sound tar, tar.gz or zip file: {error or type(error).__name__}"
        ) from error


def _too_large(name: str, why: str) -> BadInputError:
    return BadInputError(Reason.TOO_LARGE, f"{name} is rejected: {why}")
