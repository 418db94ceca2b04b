"""Images through real Triton: bad ones are rejected in words, good ones are finished as asked for."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from tritonclient.utils import InferenceServerException

from examples.client import InferenceCall
from examples.client import Server as Client
from tests.support.builder.checkpoints import DEMO
from tests.support.builder.repository import Built, build_repository
from tests.support.paths import ROOT
from tests.support.triton.client import Pixels, answer, tensor
from tests.support.triton.tritonserver import end_idle, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.support.triton.tritonserver import Server

_CONTROL = ROOT / "examples" / "demo-controlnet"
_TYPES = {"float32": "FP32", "int32": "INT32", "uint8": "UINT8", "bool": "BOOL", "object": "BYTES", "int64": "INT64"}
_RANDOM = np.random.default_rng(7)
_PIXELS = _RANDOM.integers(0, 256, (1, 64, 64, 3), np.uint8)
_MASK = np.zeros((1, 64, 64), np.uint8)
_MASK[:, :, 32:] = 255


@pytest.fixture(scope="module")
def built(store: Path) -> Built:
    """The demo checkpoint with all tasks, and img2img with its ControlNet."""
    model = {
        "source": {"path": str(DEMO)},
        "controlNets": [{"name": "silhouette", "source": {"path": str(_CONTROL)}}],
    }
    pipelines: list[dict[str, Any]] = [{"task": task, "steps": [4]} for task in ("generate", "img2img", "inpaint")]
    pipelines.append({"task": "generate", "steps": [4], "features": ["controlnet"]})
    return Built(store, str(build_repository(store, DEMO, model=model, pipelines=pipelines)[-1]["digest"]))


@pytest.fixture(scope="module")
def server(built: Built) -> Iterator[Server]:
    with serve(built.models) as running:
        yield running


def encoded(pixels: NDArray[np.uint8], file_format: str = "PNG", **options: Any) -> bytes:  # noqa: ANN401
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    return buffer.getvalue()


def sent(value: Any) -> NDArray[Any]:  # noqa: ANN401 - whatever a request may hold
    """A tensor for one sample: bytes, a number with its type, or an array that has the batch already."""
    if isinstance(value, bytes):
        return np.array([[value, None]], object)[:, :1]
    return np.asarray(value) if np.ndim(value) else np.array([[value]])


def request_image(server: Server, model: str, **inputs: Any) -> Pixels:  # noqa: ANN401 - whatever a request may hold
    arrays = {name: sent(value) for name, value in {"prompt": b"a red circle on a white background", **inputs}.items()}
    tensors = [tensor(name, _TYPES[str(array.dtype)], array) for name, array in arrays.items()]
    return np.asarray(answer(server.http, model, tensors, ["image"]).as_numpy("image"), np.uint8)


_FILE = encoded(_PIXELS[0])
_IMAGE_INPUT = {"input_image": _PIXELS}
_BAD: list[tuple[str, str, dict[str, Any], str]] = [
    ("no image", "img2img", {}, "input_image is missing: send input_image"),
    ("mask without image", "inpaint", {"mask": _MASK}, "input_image is missing: send input_image"),
    ("image without mask", "inpaint", _IMAGE_INPUT, "mask is missing: send mask"),
    ("cut png", "img2img", {"input_image_file": _FILE[:-40]}, "input_image_file is broken or cut off"),
    ("text", "img2img", {"input_image_file": b"no image"}, "send a PNG, JPEG or WebP file"),
    ("gif", "img2img", {"input_image_file": encoded(_PIXELS[0], "GIF")}, "send a PNG, JPEG or WebP file"),
    ("empty", "img2img", {"input_image_file": b""}, "input_image_file is empty"),
    ("twice", "img2img", {**_IMAGE_INPUT, "input_image_file": _FILE}, "were both sent: send one of them"),
    ("four channels", "img2img", {"input_image": np.zeros((1, 64, 64, 4), np.uint8)}, "input_image"),
    ("odd size", "img2img", {"input_image": np.zeros((1, 65, 64, 3), np.uint8)}, "send height as well"),
    ("size not served", "img2img", {**_IMAGE_INPUT, "height": np.int32(256)}, "height 256 is not supported"),
    ("broken mask", "inpaint", {**_IMAGE_INPUT, "mask_file": b"\x89PNG\r\n\x1a\n"}, "mask_file is"),
    (
        "feather",
        "inpaint",
        {**_IMAGE_INPUT, "mask": _MASK, "mask_feather": np.float32(-1)},
        "mask_feather -1 is not supported",
    ),
    ("no control", "generate_controlnet", {}, "control_image_silhouette is missing"),
    ("contrast", "generate", {"contrast": np.float32("nan")}, "contrast nan is not supported: send 0 to 4"),
    ("format", "generate", {"output_format": b"GIF"}, "output_format 'GIF' is not supported: send PNG, JPEG, WEBP"),
    ("too large", "generate", {"upscale_height": np.int32(9999)}, "upscale_height 9999 is not supported"),
    ("paste back", "img2img", {**_IMAGE_INPUT, "paste_back": np.True_}, "mask|paste_back"),
]


@pytest.mark.parametrize(("task", "inputs", "says"), [case[1:] for case in _BAD], ids=[case[0] for case in _BAD])
def test_bad_images_are_rejected_in_words(server: Server, task: str, inputs: dict[str, Any], says: str) -> None:
    with pytest.raises(InferenceServerException, match=says) as caught:
        request_image(server, f"{task}_4_pipeline", **inputs)
    assert "Traceback" not in str(caught.value)


def test_rejected_requests_are_not_in_flight_for_ever(built: Built) -> None:
    nan = {"guidance_scale": np.float32("nan")}
    nan_requests = [(task, {**nan, **inputs}) for task, inputs in (("generate", {}), ("img2img", _IMAGE_INPUT))]
    with serve(built.models) as own:
        for task, inputs in [case[1:3] for case in _BAD] + nan_requests:
            with pytest.raises(InferenceServerException):
                request_image(own, f"{task}_4_pipeline", **inputs)
        end_idle(own)


def test_pixels_and_files_start_the_same_image(server: Server) -> None:
    start = {"strength": np.float32(0.5)}
    pixels = request_image(server, "img2img_4_pipeline", **start, input_image=_PIXELS)
    assert np.array_equal(request_image(server, "img2img_4_pipeline", **start, input_image_file=_FILE), pixels)
    assert not np.array_equal(request_image(server, "img2img_4_pipeline", **start, input_image=255 - _PIXELS), pixels)


def test_inpainting_keeps_the_original_bit_for_bit_where_it_is_pasted_back(server: Server) -> None:
    inpainted = request_image(
        server, "inpaint_4_pipeline", **_IMAGE_INPUT, mask=_MASK, paste_back=np.True_, color_match=np.float32(1)
    )
    assert np.array_equal(inpainted[:, :, :32], _PIXELS[:, :, :32])
    assert not np.array_equal(inpainted[:, :, 32:], _PIXELS[:, :, 32:])
    plain = request_image(server, "inpaint_4_pipeline", **_IMAGE_INPUT, mask=_MASK)
    assert not np.array_equal(plain[:, :, :32], _PIXELS[:, :, :32])


def test_a_small_mask_and_a_large_control_image_are_resized(server: Server) -> None:
    large = np.zeros((1, 200, 150, 3), np.uint8)
    assert request_image(server, "generate_controlnet_4_pipeline", control_image_silhouette=large).shape == (
        1,
        64,
        64,
        3,
    )
    assert request_image(server, "inpaint_4_pipeline", **_IMAGE_INPUT, mask=_MASK[:, ::4, ::4]).shape == (1, 64, 64, 3)


def test_any_image_is_finished_as_asked_for(server: Server) -> None:
    plain = request_image(server, "generate_4_pipeline")
    nothing = request_image(server, "generate_4_pipeline", contrast=np.float32(1), sharpen=np.float32(0))
    assert np.array_equal(nothing, plain)
    grey = request_image(server, "generate_4_pipeline", contrast=np.float32(0))
    assert np.ptp(grey) == 0
    assert request_image(server, "generate_4_pipeline", upscale_height=np.int32(128)).shape == (1, 128, 128, 3)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_the_client_gets_files_of_the_format_that_it_asks_for(server: Server, protocol: str, file_format: str) -> None:
    url = server.http.removeprefix("http://") if protocol == "http" else server.grpc
    text = {
        "prompt": np.array([[b"a red circle"]], object),
        "output_format": np.array([[file_format.encode()]], object),
    }
    [file] = Client(url, protocol).send(InferenceCall("generate_4_pipeline", text))["encoded_image"]
    assert Image.open(io.BytesIO(file)).format == file_format


def test_the_client_on_the_command_line_repaints_an_image(server: Server, tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(_FILE)
    (tmp_path / "mask.png").write_bytes(encoded(_MASK[0]))
    command = [
        sys.executable, str(ROOT / "examples/client.py"), "a red circle", "--url", server.http.removeprefix("http://"),
        "--steps", "4", "--image", str(tmp_path / "in.png"), "--mask", str(tmp_path / "mask.png"), "--paste-back",
        "--out", str(tmp_path / "out.png"),
    ]  # fmt: skip
    good = subprocess.run(command, capture_output=True, text=True, check=True)
    assert good.stdout.splitlines() == [str(tmp_path / "out.png")]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png"))[:, :32], _PIXELS[0, :, :32])
    bad = subprocess.run([*command, "--contrast", "9"], capture_output=True, text=True, check=False)
    assert bad.returncode == 64
    assert "contrast 9 is not supported: send 0 to 4" in bad.stderr


def _filled(name: str, datum: dict[str, Any]) -> NDArray[Any]:
    """An input as perf_analyzer reads it from a file."""
    content = datum["content"]
    if isinstance(content, dict):
        raw = base64.b64decode(content["b64"])
        assert int.from_bytes(raw[:4], "little") == len(raw) - 4
        return sent(raw[4:])
    kinds = {"prompt": object, "seed": np.int64, "paste_back": np.bool_}
    texts = [text.encode() for text in content] if name == "prompt" else content
    return np.array(texts, kinds.get(name, np.float32)).reshape(1, *datum["shape"])


@pytest.mark.parametrize("name", ["generate", "img2img", "inpaint"])
def test_requests_for_load_tests_are_served(server: Server, name: str) -> None:
    [data] = json.loads((ROOT / f"examples/perf_analyzer/{name}.json").read_text())["data"]
    image = request_image(server, f"{name}_4_pipeline", **{key: _filled(key, datum) for key, datum in data.items()})
    assert image.shape == (1, 64, 64, 3)
