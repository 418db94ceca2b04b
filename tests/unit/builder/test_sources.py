"""Sources that are as they should be: what is taken from where, and downloads that break."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

import pytest

from diffusion_builder import sources
from diffusion_builder.errors import BadInputError, Reason, UnavailableError
from diffusion_builder.sources.hub import Hub, HubFile, HubReference
from diffusion_builder.sources.layout import Selection
from diffusion_builder.store import Store
from examples.demo_hub import File, HubHandler, HubServer, Repository, revision_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
from tests.support.builder.file_server import UNET, files_of, ignore
from tests.support.loopback import serving


def test_names_of_sources_are_as_they_always_were(pristine_checkpoint: Path, tmp_path: Path) -> None:
    artifact, _ = sources.from_folder(Store(tmp_path), pristine_checkpoint, ignore)
    hashes = {
        path.relative_to(pristine_checkpoint).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in pristine_checkpoint.rglob("*.*")
    }
    assert artifact.manifest.inputs == {"version": 2, "files": hashes}
    assert artifact.manifest.extra["pipelineClass"] == "StableDiffusionPipeline"
    assert set(artifact.manifest.extra["subfolders"]) == {"scheduler", "text_encoder", "tokenizer", "unet", "vae"}


def test_an_inpainting_checkpoint_is_taken(checkpoint: Path, tmp_path: Path) -> None:
    index = checkpoint / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "StableDiffusionInpaintPipeline"))
    artifact, _ = sources.from_folder(Store(tmp_path / "store"), checkpoint, ignore)
    assert artifact.manifest.extra["pipelineClass"] == "StableDiffusionInpaintPipeline"


@pytest.mark.parametrize(
    "component", ["text_encoder", "unet", "denoiser", "vae", "vae_decoder", "tokenizer", "scheduler"]
)
def test_a_component_alone_has_the_content_digest_that_it_has_in_a_checkpoint(
    pristine_checkpoint: Path, tmp_path: Path, component: str
) -> None:
    whole, _ = sources.from_folder(Store(tmp_path), pristine_checkpoint, ignore)
    alone, _ = sources.from_folder(Store(tmp_path), pristine_checkpoint, ignore, Selection(component))
    part = str(Selection(component).part)
    assert alone.manifest.extra == {
        "pipelineClass": "", "subfolders": {part: whole.manifest.extra["subfolders"][part]},
    }  # fmt: skip
    # The same from a repository that holds nothing else, as overrides usually are.
    root, _ = sources.from_folder(Store(tmp_path), pristine_checkpoint / part, ignore, Selection(component))
    assert root == alone


def extra_parts(folder: Path) -> Path:
    """A repository of adapters as they are published."""
    weights = (folder / UNET).read_bytes()
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
    ("selection", "where", "files"),
    [
        (Selection("lora"), "", {"lora/lora.safetensors"}),
        (Selection("lora", "adapters/one.safetensors"), "", {"lora/one.safetensors"}),
        (Selection("controlnet"), "net", {"controlnet/config.json", "controlnet/diffusion_pytorch_model.safetensors"}),
        (
            Selection("ip_adapter", "models/ip.safetensors"), "",
            {"ip_adapter/ip.safetensors", "image_encoder/config.json", "image_encoder/model.safetensors"},
        ),
        (Selection("ip_adapter", "lora.safetensors"), "", {"ip_adapter/lora.safetensors"}),
        (Selection("image_encoder"), "models", {"image_encoder/config.json", "image_encoder/model.safetensors"}),
    ],
)  # fmt: skip
def test_adapters_and_controlnets_are_taken_from_where_they_lie(
    checkpoint: Path, tmp_path: Path, selection: Selection, where: str, files: set[str]
) -> None:
    artifact, _ = sources.from_folder(Store(tmp_path / "store"), extra_parts(checkpoint) / where, ignore, selection)
    assert files_of(artifact) == files
    assert set(artifact.manifest.extra["subfolders"]) == {name.split("/")[0] for name in files}


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
def test_what_is_not_such_a_component_is_rejected(
    checkpoint: Path, tmp_path: Path, component: str, file: str | None, where: str, reason: Reason | None
) -> None:
    folder = extra_parts(checkpoint)
    (folder / "net" / "empty").mkdir()
    store = Store(tmp_path / "store")
    if reason is None:
        sources.from_folder(store, folder / where, ignore, Selection(component, file))
        return
    with pytest.raises(BadInputError) as caught:
        sources.from_folder(store, folder / where, ignore, Selection(component, file))
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
        sources.from_folder(Store(tmp_path / "store"), checkpoint, ignore)
    assert caught.value.reason is Reason.SOURCE_CHANGED
    assert not list((tmp_path / "store" / "sources").iterdir())


class FlakyHub(HubServer):
    """Breaks the connection in the middle of the first answers with weights, and records the requests."""

    def __init__(self, root: Path, breaks: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), root, quiet=True)
        self.RequestHandlerClass = FlakyHubHandler
        self.breaks = breaks
        self.requests: list[tuple[str, str, str]] = []


class FlakyHubHandler(HubHandler):
    server: FlakyHub

    def _send_file(self, repository: Repository, file: File, span: range, *, body: bool) -> None:
        self.server.requests.append((self.command, file.path.name, self.headers.get("Range", "")))
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
    with FlakyHub(tmp_path / "hub") as server, serving(server) as address:
        artifact, _ = sources.from_hub(
            Store(tmp_path / "store"), lambda: Hub(address, None), reference, ignore, Selection("denoiser")
        )
    assert files_of(artifact) == {"unet/config.json", UNET}
    assert {name for _, name, _ in server.requests} == {"config.json", "diffusion_pytorch_model.safetensors"}
    again, cached = sources.from_hub(
        Store(tmp_path / "store"), lambda: pytest.fail("asked"), reference, ignore, Selection("unet")
    )
    assert (again, cached) == (artifact, True)


def test_a_broken_download_from_a_hub_goes_on_where_it_was(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The library keeps whole pieces of 10 MB.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100)
    shutil.copytree(checkpoint, tmp_path / "hub" / "a" / "b")
    reference = HubReference("a/b", revision_of(tmp_path / "hub" / "a" / "b"))
    with FlakyHub(tmp_path / "hub", breaks=1) as server, serving(server) as address:
        artifact, _ = sources.from_hub(
            Store(tmp_path / "store"), lambda: Hub(address, None), reference, ignore, Selection("unet")
        )
    assert (artifact.path / UNET).read_bytes() == (checkpoint / UNET).read_bytes()
    assert ("GET", "diffusion_pytorch_model.safetensors", "bytes=1000-") in server.requests


def test_a_file_that_is_not_what_the_hub_lists_is_not_taken(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(checkpoint, tmp_path / "hub" / "a" / "b")
    reference = HubReference("a/b", revision_of(tmp_path / "hub" / "a" / "b"))
    files = Hub.files

    def listed(hub: Hub, reference: HubReference) -> Mapping[str, HubFile]:
        return {name: HubFile(file.size, "0" * 64) for name, file in files(hub, reference).items()}

    monkeypatch.setattr(Hub, "files", listed)
    with FlakyHub(tmp_path / "hub") as server, serving(server) as address, pytest.raises(UnavailableError) as caught:
        sources.from_hub(Store(tmp_path / "store"), lambda: Hub(address, None), reference, ignore)
    assert caught.value.reason is Reason.DIGEST_MISMATCH
