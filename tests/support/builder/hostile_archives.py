"""Hostile tar and zip files, the reason each is rejected for, and words of the message."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from diffusion_builder.errors import Reason
from diffusion_builder.sources.download import Download
from diffusion_builder.sources.names import MAX_FILES
from tests.support.builder.hostile_folders import BOMB, CONFIG, PICKLE, UNET, edit, put


@dataclass
class Member:
    """An entry of a tar file."""

    name: str
    content: bytes = b""
    type: bytes = tarfile.REGTYPE
    link: str = ""
    size: int | None = None


class LocalArchive(Download):
    """A download that brings bytes which a test has made."""

    def run(self, target: Path, on_file: Callable[[str, float], None], on_size: Callable[[int], None]) -> None:
        del on_file, on_size
        target.write_bytes(Path(self.url.removeprefix("http://local")).read_bytes())


def tar_file(*members: Member, folder: Path | None = None) -> bytes:
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


def zip_file(
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
    return zip_file(folder, {f"x{number}": b"" for number in range(MAX_FILES)})


def _symlink(info: zipfile.ZipInfo) -> None:
    info.external_attr = (stat.S_IFLNK | 0o777) << 16


def _method(info: zipfile.ZipInfo) -> None:
    info.compress_type = zipfile.ZIP_BZIP2


def _encrypted(folder: Path) -> bytes:
    content = bytearray(zip_file(folder))
    at = content.rindex(b"PK\x01\x02")
    content[at + 8] |= 1
    return bytes(content)


def _nul_name(folder: Path) -> bytes:
    return zip_file(folder, {"evil.json#py": b"{}"}).replace(b"evil.json#py", b"evil.json\0py")


def _huge_pax(folder: Path) -> bytes:
    """A bomb in what libraries read as one piece, before any member."""
    return gzip.compress(_header("pax", 8 << 20, tarfile.XHDTYPE) + bytes(8 << 20) + tar_file(folder=folder), 1)


_Pack = Callable[[Path], bytes]
ARCHIVES: dict[str, tuple[_Pack, Reason, str]] = {
    "tar: name that leads out": (lambda f: tar_file(Member("../evil"), folder=f), Reason.UNSAFE_PATH, "../evil"),
    "tar: hidden way out": (lambda f: tar_file(Member("unet/../../evil"), folder=f), Reason.UNSAFE_PATH, "../evil"),
    "tar: absolute name": (lambda f: tar_file(Member("/tmp/evil"), folder=f), Reason.UNSAFE_PATH, "/tmp/evil"),  # noqa: S108
    "tar: folder that leads out": (
        lambda f: tar_file(Member("../evil/", type=tarfile.DIRTYPE), folder=f), Reason.UNSAFE_PATH, "../evil",
    ),
    "tar: symbolic link": (
        lambda f: tar_file(Member("evil", type=tarfile.SYMTYPE, link="/etc"), folder=f), Reason.UNSAFE_PATH, "'evil'",
    ),
    "tar: link, then a file through it": (
        lambda f: tar_file(Member("evil", type=tarfile.SYMTYPE, link="/tmp"), Member("evil/x", b"x"), folder=f),  # noqa: S108
        Reason.UNSAFE_PATH, "'evil'",
    ),
    "tar: hard link": (
        lambda f: tar_file(Member("evil", type=tarfile.LNKTYPE, link="../../etc/passwd"), folder=f),
        Reason.UNSAFE_PATH, "'evil'",
    ),
    "tar: device": (lambda f: tar_file(Member("evil", type=tarfile.CHRTYPE), folder=f), Reason.UNSAFE_PATH, "'evil'"),
    "tar: disk": (lambda f: tar_file(Member("evil", type=tarfile.BLKTYPE), folder=f), Reason.UNSAFE_PATH, "'evil'"),
    "tar: pipe": (lambda f: tar_file(Member("evil", type=tarfile.FIFOTYPE), folder=f), Reason.UNSAFE_PATH, "'evil'"),
    "tar: name that is not UTF-8": (lambda f: tar_file(Member("\udcff"), folder=f), Reason.UNSAFE_PATH, "udcff"),
    "tar: name with a backslash": (lambda f: tar_file(Member("..\\evil"), folder=f), Reason.UNSAFE_PATH, "evil"),
    "tar: names that differ in case": (
        lambda f: tar_file(Member("UNET/config.json", b"{}"), folder=f), Reason.UNSAFE_PATH, "UNET/config.json",
    ),
    "tar: the same name twice": (
        lambda f: tar_file(Member("model_index.json", b"{}"), folder=f), Reason.UNSAFE_PATH, "'model_index.json'",
    ),
    "tar: file that is also a folder": (
        lambda f: tar_file(Member("unet", b"x"), folder=f), Reason.UNSAFE_PATH, "unet",
    ),
    "tar: name of a kilobyte": (lambda f: tar_file(Member("a" * 1100), folder=f), Reason.UNSAFE_PATH, "aaa"),
    "tar: too many files": (
        lambda f: tar_file(*(Member(f"x{n}") for n in range(MAX_FILES)), folder=f), Reason.TOO_LARGE, str(MAX_FILES),
    ),
    "tar: file of a TiB": (lambda _f: _header("evil", 1 << 40), Reason.TOO_LARGE, "'evil'"),
    "tar: bomb": (
        lambda _f: gzip.compress(_header("evil", BOMB) + bytes(BOMB), 1), Reason.TOO_LARGE, "'evil'",
    ),
    "tar: bomb in a header": (_huge_pax, Reason.TOO_LARGE, "a header of more"),
    "tar: cut off": (lambda f: tar_file(folder=f)[:3000], Reason.INVALID_ARCHIVE, "no sound"),
    "tar.gz: cut off": (lambda f: gzip.compress(tar_file(folder=f))[:-20], Reason.INVALID_ARCHIVE, "no sound"),
    "tar.gz: damaged": (
        lambda f: gzip.compress(tar_file(folder=f))[:300] + bytes(2000), Reason.INVALID_ARCHIVE, "no sound",
    ),
    "no archive": (lambda _f: PICKLE * 100, Reason.INVALID_ARCHIVE, "no sound"),
    "nothing": (lambda _f: b"", Reason.INVALID_ARCHIVE, "no sound"),
    "zip: name that leads out": (lambda f: zip_file(f, {"../evil": b"x"}), Reason.UNSAFE_PATH, "../evil"),
    "zip: absolute name": (lambda f: zip_file(f, {"/tmp/evil": b"x"}), Reason.UNSAFE_PATH, "/tmp/evil"),  # noqa: S108
    "zip: name with NUL": (_nul_name, Reason.UNSAFE_PATH, "evil.json"),
    "zip: symbolic link": (lambda f: zip_file(f, {"evil": b"/etc"}, _symlink), Reason.UNSAFE_PATH, "'evil'"),
    "zip: names that differ in case": (lambda f: zip_file(f, {"VAE/config.json": b"{}"}), Reason.UNSAFE_PATH, "VAE"),
    "zip: bomb": (lambda f: zip_file(f, {"evil": bytes(BOMB)}), Reason.TOO_LARGE, "'evil'"),
    "zip: too many files": (_many_in_zip, Reason.TOO_LARGE, str(MAX_FILES)),
    "zip: unusual compression": (lambda f: zip_file(f, {"evil": b"x"}, _method), Reason.INVALID_ARCHIVE, "'evil'"),
    "zip: encrypted": (_encrypted, Reason.INVALID_ARCHIVE, "vae/"),
    "zip: wrong sum": (_stored_zip, Reason.INVALID_ARCHIVE, "model_index.json"),
    "zip: cut off": (lambda f: zip_file(f)[:-30], Reason.INVALID_ARCHIVE, "no sound"),
    "pickle in a tar": (
        lambda f: (put(UNET, PICKLE)(f), tar_file(folder=f))[1], Reason.PICKLE_ONLY, UNET,
    ),
    "code in a zip": (
        lambda f: (edit(CONFIG, auto_map={"AutoModel": "evil.Model"})(f), zip_file(f))[1], Reason.REMOTE_CODE, CONFIG,
    ),
}  # fmt: skip
