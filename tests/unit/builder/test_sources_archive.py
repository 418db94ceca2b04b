"""Archives on web servers: ranges, proxies, wrong answers, and the command."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from diffusion_builder import sources
from diffusion_builder.errors import BadInputError, BuilderError, ExitCode, Reason, UnavailableError
from diffusion_builder.sources import download
from diffusion_builder.sources.download import Download
from diffusion_builder.sources.layout import Selection
from diffusion_builder.store import Artifact, Store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
from tests.support.builder.file_server import UNET, files_of, ignore
from tests.support.loopback import serving


class FileServer(ThreadingHTTPServer):
    """One file at any address; `script` says what happens to the next requests, one word each."""

    daemon_threads = True

    def __init__(self, content: bytes, *script: str) -> None:
        super().__init__(("127.0.0.1", 0), FileHandler)
        self.content, self.script = content, list(script)
        self.requests: list[tuple[str, str]] = []


class FileHandler(BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, *_arguments: object) -> None:
        """Tests are silent."""

    def do_GET(self) -> None:
        requested_range = self.headers.get("Range", "")
        self.server.requests.append((self.path, requested_range))
        content = self.server.content
        word = self.server.script.pop(0) if self.server.script else "whole"
        if word.isdigit():
            self.send_response(int(word))
            if word == "302":
                self.send_header("Location", "file:///etc/passwd")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        begin = int(requested_range.removeprefix("bytes=").rstrip("-") or 0) if word != "no ranges" else 0
        if begin >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        body = content[begin:]
        self.wfile.write(body[: len(body) // 2] if word == "break" else body)


@pytest.fixture
def packed(pristine_checkpoint: Path) -> bytes:
    """A tar.gz with one folder around everything, as forges make them."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        archive.add(pristine_checkpoint, arcname="./model-1.0")
    return file.getvalue()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_FIRST_WAIT_SECONDS", 0.0001)


def _fetch(store: Path, address: str, content: bytes, selection: Selection | None = None) -> tuple[Artifact, bool]:
    source = Download(f"{address}/model.tar.gz?token=s3cret", hashlib.sha256(content).hexdigest())
    return sources.from_archive(Store(store), source, ignore, selection or Selection())


def test_an_archive_is_the_same_checkpoint_as_its_folder(
    packed: bytes, pristine_checkpoint: Path, tmp_path: Path
) -> None:
    folder, _ = sources.from_folder(Store(tmp_path / "a"), pristine_checkpoint, ignore)
    with FileServer(packed) as server, serving(server) as address:
        artifact, _ = _fetch(tmp_path / "b", address, packed)
        alone, _ = _fetch(tmp_path / "b", address, packed, Selection("vae"))
    assert artifact.manifest.files == folder.manifest.files
    assert artifact.manifest.extra == folder.manifest.extra
    assert {name.split("/")[0] for name in files_of(alone)} == {"vae"}
    # Its SHA-256 names it: found again, from whatever address, without asking anybody.
    assert _fetch(tmp_path / "b", "http://127.0.0.1:1", packed) == (artifact, True)
    assert not list((tmp_path / "b" / "sources").glob(".tmp-*"))


def test_a_broken_download_goes_on_where_it_was(packed: bytes, tmp_path: Path) -> None:
    with FileServer(packed, "break", "503", "break") as server, serving(server) as address:
        _fetch(tmp_path, address, packed)
    half = len(packed) // 2
    later = half + (len(packed) - half) // 2
    assert [requested_range for _, requested_range in server.requests] == [
        "",
        f"bytes={half}-",
        f"bytes={half}-",
        f"bytes={later}-",
    ]


def test_a_server_that_knows_no_ranges_is_served_too(packed: bytes, tmp_path: Path) -> None:
    with FileServer(packed, "break", "no ranges") as server, serving(server) as address:
        artifact, _ = _fetch(tmp_path, address, packed)
    assert UNET in files_of(artifact)


def test_a_later_run_goes_on_with_what_an_earlier_one_has_got(packed: bytes, tmp_path: Path) -> None:
    with FileServer(packed, "break", *["503"] * 4) as server, serving(server) as address:
        with pytest.raises(UnavailableError) as caught:
            _fetch(tmp_path, address, packed)
        assert (caught.value.reason, caught.value.exit_code) == (Reason.SOURCE_UNREACHABLE, ExitCode.UNAVAILABLE)
        before = len(server.requests)
        _fetch(tmp_path, address, packed)
    assert [requested_range for _, requested_range in server.requests[before:]] == [f"bytes={len(packed) // 2}-"]


def test_damaged_leftovers_do_not_blame_the_server(packed: bytes, tmp_path: Path) -> None:
    with FileServer(packed, "break", *["503"] * 4) as server, serving(server) as address:
        with pytest.raises(UnavailableError):
            _fetch(tmp_path, address, packed)
        (partial_download,) = tmp_path.rglob("archive")
        partial_download.write_bytes(bytes(partial_download.stat().st_size))
        assert UNET in files_of(_fetch(tmp_path, address, packed)[0])


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        ("404", Reason.SOURCE_NOT_FOUND, ExitCode.BAD_INPUT),
        ("403", Reason.ACCESS_DENIED, ExitCode.BAD_INPUT),
        ("401", Reason.ACCESS_DENIED, ExitCode.BAD_INPUT),
        ("500", Reason.SOURCE_UNREACHABLE, ExitCode.UNAVAILABLE),
        ("429", Reason.SOURCE_UNREACHABLE, ExitCode.UNAVAILABLE),
        # A redirect to a file must not be followed.
        ("302", Reason.SOURCE_NOT_FOUND, ExitCode.BAD_INPUT),
    ],
)
def test_what_a_server_answers_has_its_reason(
    packed: bytes, tmp_path: Path, status: str, reason: Reason, code: ExitCode
) -> None:
    with (
        FileServer(packed, *[status] * 5) as server, serving(server) as address,
        pytest.raises(BuilderError) as caught,
    ):  # fmt: skip
        _fetch(tmp_path, address, packed)
    assert (caught.value.reason, caught.value.exit_code) == (reason, code)
    assert "/model.tar.gz" in caught.value.message
    assert "s3cret" not in caught.value.message


def test_another_content_than_was_asked_for_is_never_opened(
    packed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tarfile, "open", lambda *_a, **_k: pytest.fail("opened"))
    with FileServer(packed + b"x") as server, serving(server) as address, pytest.raises(BadInputError) as caught:
        _fetch(tmp_path, address, packed)
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    assert hashlib.sha256(packed).hexdigest() in caught.value.message
    assert not list((tmp_path / "sources").iterdir())


@pytest.mark.parametrize(
    ("url", "sha256"),
    [
        ("file:///etc/passwd", "0" * 64),
        ("ftp://host/x", "0" * 64),
        ("https://", "0" * 64),
        ("https://user:pass@host/x", "0" * 64),
        ("https://host/x", "0" * 63),
        ("https://host/x", "latest"),
    ],
)
def test_an_address_that_cannot_be_meant_is_rejected(url: str, sha256: str) -> None:
    with pytest.raises(BadInputError) as caught:
        Download(url, sha256)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert "pass@" not in caught.value.message


def test_proxies_of_the_environment_are_used(packed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FileServer(packed) as server, serving(server) as address:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", address)
        _fetch(tmp_path, "http://nowhere.invalid", packed)
    assert server.requests[0][0].startswith("http://nowhere.invalid/model.tar.gz")


def _run(tmp_path: Path, *arguments: str) -> tuple[int, Mapping[str, Any]]:
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "diffusion_builder", "fetch", "--store", str(tmp_path / "store")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run(
        [*command, "--result", str(result), *arguments], capture_output=True, text=True, check=False, env=environment
    )
    assert "Traceback" not in process.stderr
    return process.returncode, json.loads(result.read_text())


def test_the_command_fetches_archives_and_components(packed: bytes, tmp_path: Path) -> None:
    digest = hashlib.sha256(packed).hexdigest()
    with FileServer(packed) as server, serving(server) as address:
        code, body = _run(tmp_path, "--url", f"{address}/x.tar.gz", "--sha256", digest, "--component", "denoiser")
    assert (code, body["cached"], list(body["subfolders"])) == (0, False, ["unet"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--url", "https://host/x"),
        ("--sha256", "0" * 64),
        ("--url", "https://host/x", "--sha256", "0" * 64, "--repo", "a/b"),
        ("--path", "/", "--url", "https://host/x", "--sha256", "0" * 64),
        ("--path", "/", "--component", "dragon"),
    ],
)
def test_the_command_rejects_origins_that_contradict_each_other(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, body = _run(tmp_path, *arguments)
    assert (code, body["error"]["reason"]) == (ExitCode.BAD_INPUT, "InvalidArgument")
