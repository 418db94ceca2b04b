"""Checksums and signatures of files. A release signs without keys (Sigstore); a dry run signs with a key of its own.

Both sign SHA256SUMS, which names every other file. The dry run uses OpenSSL: ECDSA over P-256 and SHA-256, in base64,
is what `cosign verify-blob --key` reads.
"""

from __future__ import annotations

import base64
import hashlib
import tempfile
from pathlib import Path
from typing import Final

from tools.common.errors import ToolError
from tools.common.shell import attempt, run

CHECKSUMS: Final = "SHA256SUMS"
SIGNATURE: Final = "SHA256SUMS.sig"
_LINE_PARTS: Final = 2


def write_checksums(folder: Path) -> Path:
    """Write SHA256SUMS over all files of the folder, as `sha256sum --check` reads it."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(CHECKSUMS))
    sums = folder / CHECKSUMS
    sums.write_text("".join(f"{_sha256(path)}  {path.name}\n" for path in files))
    return sums


def check_checksums(folder: Path) -> list[str]:
    """Return the names of all files, each of which is as SHA256SUMS says.

    Raises:
        ToolError: A file is missing, another one, or not in the list.
    """
    lines = [line.split(maxsplit=1) for line in (folder / CHECKSUMS).read_text().splitlines()]
    expected = {parts[1]: parts[0] for parts in lines if len(parts) == _LINE_PARTS}
    present = {path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(CHECKSUMS)}
    wrong = [name for name in expected if name not in present or _sha256(folder / name) != expected[name]]
    if wrong or present - expected.keys():
        raise ToolError(
            f"{folder} is not what {CHECKSUMS} says",
            detail="\n".join([*(f"{name}: another content" for name in wrong), *sorted(present - expected.keys())]),
        )
    return sorted(expected)


def make_key(folder: Path) -> tuple[Path, Path]:
    """Make a key pair; return the files of the private and of the public key (PEM)."""
    private, public = folder / "key.pem", folder / "key.pub"
    run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private])
    run(["openssl", "ec", "-in", private, "-pubout", "-out", public])
    return private, public


def sign(file: Path, private: Path, signature: Path) -> None:
    """Sign a file's SHA-256 with a private key; write the signature in base64."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "signature"
        run(["openssl", "dgst", "-sha256", "-sign", private, "-out", raw, file], what="signing")
        signature.write_text(base64.b64encode(raw.read_bytes()).decode() + "\n")


def verify(file: Path, public: Path, signature: Path) -> None:
    """Raise ToolError unless the signature is that of the file."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "signature"
        raw.write_bytes(base64.b64decode(signature.read_text()))
        process = attempt(["openssl", "dgst", "-sha256", "-verify", public, "-signature", raw, file])
    if process.returncode:
        raise ToolError(f"{signature.name} is not the signature of {file.name}", detail=process.stdout + process.stderr)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
