"""Sources that are as they should be: what is taken from where, and downloads that break."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import diffusion_builder
from diffusion_builder import sources
from diffusion_builder.errors import BadInputError, BuilderError, ExitCode, Reason, UnavailableError
from diffusion_builder.hub import Hub, HubFile, HubReference
from diffusion_builder.layout import Wanted
from diffusion_builder.sources import download
from diffusion_builder.sources.download import Download
from diffusion_builder.store import Artifact, Store
from examples.demo_hub import File, HubHandler, HubServer, Repository, revision_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_UNET = "unet/diffusion_pytorch_model.safetensors"


def _ignore(_name: str, _fraction: float) -> None:
    return None


def _files(artifact: Artifact) -> set[str]:
    return set(artifact.manifest.files)


@contextmanager
def _serving(server: ThreadingHTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_names_of_sources_are_as_they_always_were(pristine_checkpoint: Path, tmp_path: Path) -> None:
    artifact, _ = sources.from_folder(Store(tmp_path), pristine_checkpoint, _ignore)
    hashes = {
        path.relative_to(pristine_checkpoint).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in pristine_checkpoint.rglob("*.*")
    }
    assert artifact.manifest.inputs == {"version": 1, "files": hashes}
    assert artifact.manifest.extra["pipelineClass"] == "StableDiffusionPipeline"
    assert set(artifact.manifest.extra["components"]) == {"scheduler", "text_encoder", "tokenizer", "unet", "vae"}


def test_an_inpainting_checkpoint_is_taken(checkpoint: Path, tmp_path: Path) -> None:
    index = checkpoint / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "StableDiffusionInpaintPipeline"))
    artifact, _ = sources.from_folder(Store(tmp_path / "store"), checkpoint, _ignore)
    assert artifact.manifest.extra["pipelineClass"] == "StableDiffusionInpaintPipeline"


@pytest.mark.parametrize(
    "component", ["text_encoder", "unet", "denoiser", "vae", "vae_decoder", "tokenizer", "scheduler"]
)
def test_a_component_alone_has_the_content_digest_that_it_has_in_a_checkpoint(
    pristine_checkpoint: Path, tmp_path: Path, component: str
) -> None:
    whole, _ = sources.from_folder(Store(tmp_path), pristine_checkpoint, _ignore)
    alone, _ = sources.from_folder(Store(tmp_path), pristine_checkpoint, _ignore, Wanted(component))
    part = str(Wanted(component).part)
    assert alone.manifest.extra == {
        "pipelineClass": "", "components": {part: whole.manifest.extra["components"][part]},
    }  # fmt: skip
    # The same from a repository that holds nothing else, as overrides usually are.
    root, _ = sources.from_folder(Store(tmp_path), pristine_checkpoint / part, _ignore, Wanted(component))
    assert root == alone


def _extra_parts(folder: Path) -> Path:
    """A repository of adapters as they are published."""
    weights = (folder / _UNET).read_bytes()
    names = (
        "lora.safetensors", "adapters/one.safetensors", "models/ip.safetensors",
        "net/diffusion_pytorch_model.safetensors", "models/image_encoder/model.safetensors",
    )  # fmt: skip
    for name in names:
        (folder / "more" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "more" / name).write_bytes(weights)
    (folder / "more" / "net" / "config.json").write_text('{"_class_name": "ControlNetModel"}')
    encoder = folder / "more" / "models" / "image_encoder" / "config.json"
    encoder.write_text('{"architectures": ["CLIPVisionModelWithProjection"]}')
    return folder / "more"


@pytest.mark.parametrize(
    ("wanted", "where", "files"),
    [
        (Wanted("lora"), "", {"lora/lora.safetensors"}),
        (Wanted("lora", "adapters/one.safetensors"), "", {"lora/one.safetensors"}),
        (Wanted("controlnet"), "net", {"controlnet/config.json", "controlnet/diffusion_pytorch_model.safetensors"}),
        (
            Wanted("ip_adapter", "models/ip.safetensors"), "",
            {"ip_adapter/ip.safetensors", "image_encoder/config.json", "image_encoder/model.safetensors"},
        ),
        (Wanted("ip_adapter", "lora.safetensors"), "", {"ip_adapter/lora.safetensors"}),
        (Wanted("image_encoder"), "models", {"image_encoder/config.json", "image_encoder/model.safetensors"}),
    ],
)  # fmt: skip
def test_adapters_and_controlnets_are_taken_from_where_they_lie(
    checkpoint: Path, tmp_path: Path, wanted: Wanted, where: str, files: set[str]
) -> None:
    artifact, _ = sources.from_folder(Store(tmp_path / "store"), _extra_parts(checkpoint) / where, _ignore, wanted)
    assert _files(artifact) == files
    assert set(artifact.manifest.extra["components"]) == {name.split("/")[0] for name in files}


@pytest.mark.parametrize(
    ("component", "file", "where", "reason"),
    [
        ("lora", None, "net/..", None),
        ("lora", "nothing.safetensors", "", Reason.MISSING_FILE),
        ("lora", None, "net/empty", Reason.MISSING_FILE),
        ("controlnet", None, "models/image_encoder", Reason.MISSING_FILE),
        ("image_encoder", None, "net", Reason.MISSING_FILE),
        ("unet", None, "net", Reason.UNSUPPORTED_COMPONENT),
        ("lora", "lora.bin", "", Reason.PICKLE_ONLY),
        ("unet", "x.safetensors", "", Reason.INVALID_ARGUMENT),
        ("dragon", None, "", Reason.INVALID_ARGUMENT),
    ],
)
def test_what_is_not_such_a_component_is_refused(
    checkpoint: Path, tmp_path: Path, component: str, file: str | None, where: str, reason: Reason | None
) -> None:
    folder = _extra_parts(checkpoint)
    (folder / "net" / "empty").mkdir()
    store = Store(tmp_path / "store")
    if reason is None:
        sources.from_folder(store, folder / where, _ignore, Wanted(component, file))
        return
    with pytest.raises(BadInputError) as caught:
        sources.from_folder(store, folder / where, _ignore, Wanted(component, file))
    assert caught.value.reason is reason


def test_a_folder_that_changes_while_it_is_copied_is_not_taken(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copyfile

    def changed(source: Path, target: Path) -> None:
        copy(source, target)
        if source.name == "merges.txt":
            target.write_text("#version: 0.3\n")

    monkeypatch.setattr(shutil, "copyfile", changed)
    with pytest.raises(UnavailableError) as caught:
        sources.from_folder(Store(tmp_path / "store"), checkpoint, _ignore)
    assert caught.value.reason is Reason.SOURCE_CHANGED
    assert not list((tmp_path / "store" / "sources").iterdir())


class FlakyHub(HubServer):
    """Breaks the connection in the middle of the first answers with weights, and remembers what was asked."""

    def __init__(self, root: Path, breaks: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), root, quiet=True)
        self.RequestHandlerClass = FlakyHubHandler
        self.breaks = breaks
        self.asked: list[tuple[str, str, str]] = []


class FlakyHubHandler(HubHandler):
    server: FlakyHub

    def _send_file(self, repository: Repository, file: File, span: range, *, body: bool) -> None:
        self.server.asked.append((self.command, file.path.name, self.headers.get("Range", "")))
        if body and file.path.suffix == ".safetensors" and self.server.breaks:
            self.server.breaks -= 1
            self.send_response(200)
            self.send_header("Content-Length", str(file.size))
            self.send_header("ETag", f'"{file.sha256}"')
            self.end_headers()
            self.wfile.write(file.path.read_bytes()[:1000])
            self.close_connection = True
            return
        super()._send_file(repository, file, span, body=body)


def test_an_override_of_one_component_downloads_only_that(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "hub" / "a" / "b")
    reference = HubReference("a/b", revision_of(tmp_path / "hub" / "a" / "b"))
    with FlakyHub(tmp_path / "hub") as server, _serving(server) as address:
        artifact, _ = sources.from_hub(
            Store(tmp_path / "store"), lambda: Hub(address, None), reference, _ignore, Wanted("denoiser")
        )
    assert _files(artifact) == {"unet/config.json", _UNET}
    assert {name for _, name, _ in server.asked} == {"config.json", "diffusion_pytorch_model.safetensors"}
    again, cached = sources.from_hub(
        Store(tmp_path / "store"), lambda: pytest.fail("asked"), reference, _ignore, Wanted("unet")
    )
    assert (again, cached) == (artifact, True)


def test_a_broken_download_from_a_hub_goes_on_where_it_was(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The library keeps whole pieces of 10 MB.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100)
    shutil.copytree(checkpoint, tmp_path / "hub" / "a" / "b")
    reference = HubReference("a/b", revision_of(tmp_path / "hub" / "a" / "b"))
    with FlakyHub(tmp_path / "hub", breaks=1) as server, _serving(server) as address:
        artifact, _ = sources.from_hub(
            Store(tmp_path / "store"), lambda: Hub(address, None), reference, _ignore, Wanted("unet")
        )
    assert (artifact.path / _UNET).read_bytes() == (checkpoint / _UNET).read_bytes()
    assert ("GET", "diffusion_pytorch_model.safetensors", "bytes=1000-") in server.asked


def test_a_file_that_is_not_what_the_hub_lists_is_not_taken(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(checkpoint, tmp_path / "hub" / "a" / "b")
    reference = HubReference("a/b", revision_of(tmp_path / "hub" / "a" / "b"))
    files = Hub.files

    def listed(hub: Hub, reference: HubReference) -> Mapping[str, HubFile]:
        return {name: HubFile(file.size, "0" * 64) for name, file in files(hub, reference).items()}

    monkeypatch.setattr(Hub, "files", listed)
    with FlakyHub(tmp_path / "hub") as server, _serving(server) as address, pytest.raises(UnavailableError) as caught:
        sources.from_hub(Store(tmp_path / "store"), lambda: Hub(address, None), reference, _ignore)
    assert caught.value.reason is Reason.DIGEST_MISMATCH


class FileServer(ThreadingHTTPServer):
    """One file at any address; `script` says what happens to the next requests, one word each."""

    daemon_threads = True

    def __init__(self, content: bytes, *script: str) -> None:
        super().__init__(("127.0.0.1", 0), FileHandler)
        self.content, self.script = content, list(script)
        self.asked: list[tuple[str, str]] = []


class FileHandler(BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, *_arguments: object) -> None:
        """Tests are silent."""

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.asked.append((self.path, wanted))
        content = self.server.content
        word = self.server.script.pop(0) if self.server.script else "whole"
        if word.isdigit():
            self.send_response(int(word))
            if word == "302":
                self.send_header("Location", "file:///etc/passwd")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        begin = int(wanted.removeprefix("bytes=").rstrip("-") or 0) if word != "no ranges" else 0
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


def _fetch(store: Path, address: str, content: bytes, wanted: Wanted | None = None) -> tuple[Artifact, bool]:
    source = Download(f"{address}/model.tar.gz?token=s3cret", hashlib.sha256(content).hexdigest())
    return sources.from_archive(Store(store), source, _ignore, wanted or Wanted())


def test_an_archive_is_the_same_checkpoint_as_its_folder(
    packed: bytes, pristine_checkpoint: Path, tmp_path: Path
) -> None:
    folder, _ = sources.from_folder(Store(tmp_path / "a"), pristine_checkpoint, _ignore)
    with FileServer(packed) as server, _serving(server) as address:
        artifact, _ = _fetch(tmp_path / "b", address, packed)
        alone, _ = _fetch(tmp_path / "b", address, packed, Wanted("vae"))
    assert artifact.manifest.files == folder.manifest.files
    assert artifact.manifest.extra == folder.manifest.extra
    assert {name.split("/")[0] for name in _files(alone)} == {"vae"}
    # Its SHA-256 names it: found again, from whatever address, without asking anybody.
    assert _fetch(tmp_path / "b", "http://127.0.0.1:1", packed) == (artifact, True)
    assert not list((tmp_path / "b" / "sources").glob(".tmp-*"))


def test_a_broken_download_goes_on_where_it_was(packed: bytes, tmp_path: Path) -> None:
    with FileServer(packed, "break", "503", "break") as server, _serving(server) as address:
        _fetch(tmp_path, address, packed)
    half = len(packed) // 2
    later = half + (len(packed) - half) // 2
    assert [wanted for _, wanted in server.asked] == ["", f"bytes={half}-", f"bytes={half}-", f"bytes={later}-"]


def test_a_server_that_knows_no_ranges_is_served_too(packed: bytes, tmp_path: Path) -> None:
    with FileServer(packed, "break", "no ranges") as server, _serving(server) as address:
        artifact, _ = _fetch(tmp_path, address, packed)
    assert _UNET in _files(artifact)


def test_a_later_run_goes_on_with_what_an_earlier_one_has_got(packed: bytes, tmp_path: Path) -> None:
    with FileServer(packed, "break", *["503"] * 4) as server, _serving(server) as address:
        with pytest.raises(UnavailableError) as caught:
            _fetch(tmp_path, address, packed)
        assert (caught.value.reason, caught.value.exit_code) == (Reason.SOURCE_UNREACHABLE, ExitCode.UNAVAILABLE)
        before = len(server.asked)
        _fetch(tmp_path, address, packed)
    assert [wanted for _, wanted in server.asked[before:]] == [f"bytes={len(packed) // 2}-"]


def test_damaged_leftovers_do_not_blame_the_server(packed: bytes, tmp_path: Path) -> None:
    with FileServer(packed, "break", *["503"] * 4) as server, _serving(server) as address:
        with pytest.raises(UnavailableError):
            _fetch(tmp_path, address, packed)
        (left,) = tmp_path.rglob("archive")
        left.write_bytes(bytes(left.stat().st_size))
        assert _UNET in _files(_fetch(tmp_path, address, packed)[0])


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
        FileServer(packed, *[status] * 5) as server, _serving(server) as address,
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
    with FileServer(packed + b"x") as server, _serving(server) as address, pytest.raises(BadInputError) as caught:
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
def test_an_address_that_cannot_be_meant_is_refused(url: str, sha256: str) -> None:
    with pytest.raises(BadInputError) as caught:
        Download(url, sha256)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert "pass@" not in caught.value.message


def test_proxies_of_the_environment_are_used(packed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FileServer(packed) as server, _serving(server) as address:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", address)
        _fetch(tmp_path, "http://nowhere.invalid", packed)
    assert server.asked[0][0].startswith("http://nowhere.invalid/model.tar.gz")


def _run(tmp_path: Path, *arguments: str) -> tuple[int, Mapping[str, Any]]:
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "diffusion_builder", "fetch", "--store", str(tmp_path / "store")]
    environment = os.environ | {"PYTHONPATH": str(Path(diffusion_builder.__file__).parents[1])}
    done = subprocess.run(
        [*command, "--result", str(result), *arguments], capture_output=True, text=True, check=False, env=environment
    )
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(result.read_text())


def test_the_command_fetches_archives_and_components(packed: bytes, tmp_path: Path) -> None:
    digest = hashlib.sha256(packed).hexdigest()
    with FileServer(packed) as server, _serving(server) as address:
        code, body = _run(tmp_path, "--url", f"{address}/x.tar.gz", "--sha256", digest, "--component", "denoiser")
    assert (code, body["cached"], list(body["components"])) == (0, False, ["unet"])


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
def test_the_command_refuses_origins_that_contradict_each_other(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, body = _run(tmp_path, *arguments)
    assert (code, body["error"]["reason"]) == (ExitCode.BAD_INPUT, "InvalidArgument")
