"""The client that users copy: what it sends, to whom, and what it says when that fails."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from examples import client

if TYPE_CHECKING:
    from argparse import Namespace

_FILE = b"\x89PNG\r\n\x1a\n"
_SCRIPT = Path(client.__file__)


@pytest.fixture
def image_file(tmp_path: Path) -> str:
    path = tmp_path / "given.png"
    path.write_bytes(_FILE)
    return str(path)


def parsed(*arguments: str) -> Namespace:
    return client.parser().parse_args(["a red circle", *arguments])


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(_SCRIPT), *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "model"),
    [
        ([], "generate_20_pipeline"),
        (["--steps", "4"], "generate_4_pipeline"),
        (["--image", "a.png"], "img2img_20_pipeline"),
        (["--image", "a.png", "--mask", "b.png"], "inpaint_20_pipeline"),
        (["--control", "canny=a.png"], "generate_controlnet_20_pipeline"),
        (
            ["--reference", "a.png", "--control", "x=y", "--task", "img2img"],
            "img2img_controlnet_ip_adapter_20_pipeline",
        ),
        (["--prompt-embeddings", "a.npy"], "generate_embeddings_20_pipeline"),
    ],
)
def test_task_and_features_follow_from_what_is_sent(arguments: list[str], model: str) -> None:
    assert client.ensemble(parsed(*arguments)) == model


def test_only_what_was_said_is_sent() -> None:
    sent = client.inputs(parsed())
    assert {name: array.tolist() for name, array in sent.items()} == {"prompt": [[b"a red circle"]], "seed": [[0]]}


def test_each_input_has_the_type_and_shape_that_servers_expect(image_file: str, tmp_path: Path) -> None:
    np.save(tmp_path / "negative.npy", np.zeros((77, 8), np.float64))
    sent = client.inputs(
        parsed(
            "--num-images", "2", "--seed", "7", "--image", image_file, "--mask", image_file, "--strength", "0.5",
            "--height", "64", "--reference", image_file, "--reference", image_file, "--control", f"canny={image_file}",
            "--control-scale", "canny=0.5", "--paste-back", "--output-format", "jpeg", "--quality", "80",
            "--negative-prompt-embeddings", str(tmp_path / "negative.npy"),
        )
    )  # fmt: skip
    assert {name: (str(array.dtype), array.shape) for name, array in sent.items()} == {
        "prompt": ("object", (2, 1)),
        "seed": ("int64", (2, 1)),
        "negative_prompt_embeddings": ("float32", (2, 77, 8)),
        "input_image_file": ("object", (2, 1)),
        "mask_file": ("object", (2, 1)),
        "strength": ("float32", (2, 1)),
        "height": ("int32", (2, 1)),
        "ip_adapter_image_file": ("object", (2, 2)),
        "control_image_canny_file": ("object", (2, 1)),
        "control_scale_canny": ("float32", (2, 1)),
        "paste_back": ("bool", (2, 1)),
        "output_format": ("object", (2, 1)),
        "quality": ("int32", (2, 1)),
    }
    assert sent["seed"].reshape(-1).tolist() == [7, 8]
    assert sent["ip_adapter_image_file"][1].tolist() == [_FILE] * 2


def test_every_image_has_a_file_of_its_own(tmp_path: Path) -> None:
    paths = client.save({"encoded_image": [b"1", b"2"], "preview_5": [b"3", b"4"]}, tmp_path / "new" / "a.png")
    assert [path.name for path in paths] == ["a-1.png", "a-2.png", "a-preview-5-1.png", "a-preview-5-2.png"]
    assert [path.read_bytes() for path in paths] == [b"1", b"2", b"3", b"4"]


def test_input_data_for_perf_analyzer_has_lengths_before_bytes(image_file: str, tmp_path: Path) -> None:
    target = tmp_path / "load.json"
    result = run("x", "--image", image_file, "--strength", "0.5", "--input-data", str(target))
    assert result.stdout.strip() == f"perf_analyzer -m img2img_20_pipeline --input-data {target}"
    [data] = json.loads(target.read_text())["data"]
    assert data["strength"] == {"content": [0.5], "shape": [1]}
    assert base64.b64decode(data["input_image_file"]["content"]["b64"]) == b"\x08\0\0\0" + _FILE
    assert data["prompt"] == {"content": ["x"], "shape": [1]}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_server_that_is_not_there_is_one_block_without_a_traceback(protocol: str) -> None:
    result = run("x", "--url", "127.0.0.1:1", "--protocol", protocol)
    lines = result.stderr.splitlines()
    assert lines[0] == "No image from generate_20_pipeline at 127.0.0.1:1"
    assert [line[:8] for line in lines[1:]] == ["  what  ", "  do    "]
    # Without the grpc extra it says what to install.
    assert result.returncode == (69 if "Is Triton listening" in lines[2] else 64)
    assert "Is Triton listening" in lines[2] or "pip install 'tritonclient[grpc]'" in lines[2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--image", "nowhere.png"], "nowhere.png cannot be read"),
        (["--prompt-embeddings", str(_SCRIPT)], "Give a file that numpy.save has written."),
        (["--control", "canny"], "is not NAME=VALUE"),
    ],
)
def test_what_cannot_be_sent_is_said_in_words(arguments: list[str], says: str) -> None:
    result = run("x", *arguments)
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert result.returncode in {2, 64}


def _refused(message: str) -> Any:  # noqa: ANN401 - tritonclient has no types
    return client._explained(InferenceServerException(message), "127.0.0.1:8000", "generate_4_pipeline")  # noqa: SLF001


def test_what_the_server_says_reaches_the_user() -> None:
    error = _refused("height 256 is not supported: send a multiple of 8 from 64 to 128 pixels")
    assert error.what == "height 256 is not supported: send a multiple of 8 from 64 to 128 pixels"
    assert error.status == 64
    assert "v2/repository/index" in _refused("Request for unknown model: 'generate_4_pipeline' is not found").advice
