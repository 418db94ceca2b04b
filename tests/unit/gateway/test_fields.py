"""Fields of a request: what is served is checked, anything else is refused by name."""

from __future__ import annotations

import pytest

from diffusion_gateway.errors import ApiError
from diffusion_gateway.fields import parse_fields

PROMPT: dict[str, object] = {"prompt": "a red star"}


def test_a_prompt_is_enough() -> None:
    fields = parse_fields(PROMPT)
    assert (fields.prompt, fields.n, fields.size, fields.quality, fields.stream) == (
        "a red star",
        1,
        None,
        "auto",
        False,
    )


def test_a_form_sends_everything_as_text() -> None:
    texts: dict[str, object] = {"n": "2", "size": "512x768", "seed": "7", "stream": "true", "partial_images": "1"}
    fields = parse_fields(PROMPT | texts)
    assert (fields.n, fields.size, fields.seed, fields.stream, fields.partial_images) == (2, (512, 768), 7, True, 1)


def test_the_official_clients_defaults_are_taken() -> None:
    values: dict[str, object] = {
        "model": None, "background": "auto", "moderation": "auto", "output_format": "png", "quality": "auto",
        "response_format": "b64_json", "size": "auto", "user": "u-1", "n": None,
    }  # fmt: skip
    assert parse_fields(PROMPT | values).n == 1


def test_fields_of_the_pipeline_pass_by_their_own_names() -> None:
    assert parse_fields(PROMPT | {"guidance_scale": 3, "contrast": None}).inputs == {"guidance_scale": 3}


@pytest.mark.parametrize(
    ("values", "param", "says"),
    [
        ({"prompt": None}, "prompt", "prompt is missing"),
        ({"prompt": 7}, "prompt", "valid string"),
        ({"prompt": "x" * 32_001}, "prompt", "at most 32000"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"n": 1.5}, "n", "integer"),
        ({"size": "512"}, "size", "width x height"),
        ({"size": "0x64"}, "size", "width x height"),
        ({"size": "999999x64"}, "size", "width x height"),
        ({"size": [64, 64]}, "size", "width x height"),
        ({"quality": "max"}, "quality", "'low', 'medium', 'high'"),
        ({"quality": "low", "num_inference_steps": 4}, "quality", "send one of them"),
        ({"num_inference_steps": 65}, "num_inference_steps", "less than or equal to 64"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"seed": 2**32}, "seed", "less than"),
        ({"output_format": "gif"}, "output_format", "'png', 'jpeg' or 'webp'"),
        ({"output_compression": 50}, "output_compression", "send output_format jpeg or webp"),
        ({"output_format": "jpeg", "output_compression": 101}, "output_compression", "less than or equal to 100"),
        ({"partial_images": 2}, "partial_images", "send stream true"),
        ({"stream": True, "partial_images": 4}, "partial_images", "less than or equal to 3"),
        ({"response_format": "url"}, "response_format", "send b64_json"),
        ({"background": "transparent"}, "background", "images are opaque"),
        ({"moderation": "low"}, "moderation", "leave it out"),
        ({"style": "vivid"}, "style", "describe it in the prompt"),
        ({"loras": [{"path": "x"}]}, "loras", "merged when the pipeline is built"),
        ({"image_url": "http://169.254.169.254/"}, "image_url", "URLs are not fetched"),
        ({"height": 64}, "height", "send size"),
    ],
)
def test_what_is_not_served_is_refused_by_name(values: dict[str, object], param: str, says: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_fields(PROMPT | values)
    error = caught.value.body()["error"]
    assert (caught.value.status, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert says in error["message"]
