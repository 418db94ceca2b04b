"""Errors of Triton and of the pipeline's models, in the words of the API."""

from __future__ import annotations

import pytest

from diffusion_gateway.triton import explain

TOGETHER = "height 64 and width 96 are not supported together"
INPUTS = {"prompt", "seed", "height", "width", "input_image_file", "mask_file", "contrast", "quality"}


@pytest.mark.parametrize(
    ("message", "param", "says"),
    [
        ("height 65 is not supported: send a multiple of 8", "size", "height 65 is not supported"),
        (
            f"{TOGETHER}: send height and width of one of 128 x 64, 64 x 128 (height x width)",
            "size",
            "size 96x64 is not supported: send 64x128 or 128x64",
        ),
        ("contrast 9 is not supported: send 0 to 4", "contrast", "contrast 9"),
        ("quality 0 is not supported: send 1 to 100", "output_compression", "quality 0"),
        ("mask_file is broken or cut off (x): send the whole file", "mask", "mask_file is broken"),
        (
            "input_image has the height 65, which is not supported: send height as well, a multiple of 8",
            "image",
            "image has the height 65, which is not supported: send size as well",
        ),
        ("input_image_file is an animation of 2 frames", "image", "image is an animation"),
        ("input_image is missing: send input_image", "image", "image is missing"),
        ("mask and mask_file were both sent: send one of them", "mask", "were both sent"),
    ],
)
def test_an_invalid_input_is_the_clients_error_and_named_as_in_the_api(message: str, param: str, says: str) -> None:
    error = explain("shapes", "StatusCode.INTERNAL", f"in ensemble 'generate_4_pipeline', {message}", INPUTS)
    assert (error.status, error.param) == (400, param)
    assert error.message.startswith(says) or says in error.message
    assert "ensemble" not in error.message


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        ("UNAVAILABLE", "connection refused", 503),
        ("CANCELLED", "", 503),
        ("UNAVAILABLE", "Request for unknown model: 'generate_4_pipeline' is not found", 503),
        ("NOT_FOUND", "Request for unknown model: 'generate_4_pipeline' is not found", 503),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", 504),
        ("INVALID_ARGUMENT", "[request id: <id_unknown>] inference request batch-size must be <= 8", 400),
        ("INTERNAL", "in ensemble 'generate_4_pipeline', Failed to process the request(s): Traceback", 502),
        ("RESOURCE_EXHAUSTED", "CUDA out of memory", 502),
    ],
)
def test_other_errors_say_whether_to_send_the_request_again(status: str, message: str, expected: int) -> None:
    error = explain("shapes", f"StatusCode.{status}", message, INPUTS)
    assert error.status == expected
    assert error.retry_after == (1 if expected == 503 else 0)
    assert "Traceback" not in error.message
