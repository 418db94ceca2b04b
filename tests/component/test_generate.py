"""The generate endpoint: JSON in, JSON out, with what curl and a shell have."""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.support.triton.client import ImageRequest, answer, inputs, psnr, send

if TYPE_CHECKING:
    from tests.support.triton.tritonserver import Server

_PROMPT = "a red circle on a blue background"
# Batches of another size take other code paths in matrix products: last bits differ, images do not.
_SAME_DB = 45.0


def _generate(server: Server, **body: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    url = f"{server.http}/v2/models/generate_4_json/generate"
    request = urllib.request.Request(url, json.dumps(body).encode())  # noqa: S310 - our own server
    with urllib.request.urlopen(request, timeout=300) as response:  # noqa: S310 - our own server
        content: dict[str, Any] = json.loads(response.read())
        return content


def _pixels(text: str) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text, validate=True))))


def test_a_prompt_is_enough_and_the_image_comes_as_text(ddim: Server) -> None:
    content = _generate(ddim, prompt=_PROMPT)
    assert np.array_equal(_pixels(content["encoded_image_base64"]), send(ddim.http, ImageRequest(4, [_PROMPT]))[0])
    # Neither pixels nor the bytes of a file, which are not text, are in the JSON.
    assert content.keys().isdisjoint({"image", "encoded_image"})


def test_inputs_besides_the_prompt_and_several_images(ddim: Server) -> None:
    one = _generate(ddim, prompt=_PROMPT, seed=7, guidance_scale=3.5, height=96, output_format="JPEG")
    assert _pixels(one["encoded_image_base64"]).shape == (96, 64, 3)
    two = _generate(ddim, prompt=[_PROMPT, "a green star"], seed=[7, 8])
    images = [_pixels(text) for text in two["encoded_image_base64"]]
    expected = send(ddim.http, ImageRequest(4, [_PROMPT, "a green star"], seed=[7, 8]))
    assert [psnr(*pair) >= _SAME_DB for pair in zip(images, expected, strict=True)] == [True] * 2


def test_an_invalid_input_is_named(ddim: Server) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        _generate(ddim, prompt=_PROMPT, height=65)
    assert "height 65 is not supported: send a multiple of 8" in json.loads(caught.value.read())["error"]


def test_clients_get_the_outputs_that_they_name(ddim: Server) -> None:
    tensors, names = inputs(ImageRequest(4, [_PROMPT])), ("image", "encoded_image", "encoded_image_base64")
    pixels, file, text = (answer(ddim.http, "generate_4_pipeline", tensors, [name]).as_numpy(name)[0] for name in names)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(file[0]))), pixels)
    assert base64.b64decode(text[0]) == file[0]
    outputs = answer(ddim.http, "generate_4_pipeline", tensors)
    assert np.array_equal(outputs.as_numpy("image")[0], pixels)
    assert [outputs.as_numpy(name)[0, 0] for name in names[1:]] == [file[0], text[0]]
