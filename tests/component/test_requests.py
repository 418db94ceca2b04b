"""Requests to real Triton: joined with others, with defaults, and wrong ones."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from tritonclient.utils import InferenceServerException

from diffusion_builder.errors import SmokeTestError
from diffusion_builder.serving.smoke import smoke_test
from diffusion_builder.store import Kind, Store
from examples import client
from tests.support.triton.client import ImageRequest, Pixels, answer, counts, inputs, psnr, send, send_all, tensor

if TYPE_CHECKING:
    from tests.support.builder.repository import Built
    from tests.support.triton.tritonserver import Server

_PROMPT = "a red circle on a blue background"
# Batches of another size take other code paths in matrix products: last bits differ, images do not.
_SAME_DB = 45.0


def test_mixed_concurrent_requests_give_the_images_they_give_alone(ddim: Server) -> None:
    requests = [
        ImageRequest(4 if index % 3 else 20, [f"{_PROMPT} {index}"], seed=[index], guidance_scale=[1.0 + index])
        for index in range(12)
    ]
    alone = [send(ddim.http, request) for request in requests]
    before = counts(ddim.http, "5_denoiser")
    together = send_all(ddim.http, requests)
    denoiser_counts = counts(ddim.http, "5_denoiser").since(before)
    assert [psnr(one, other) >= _SAME_DB for one, other in zip(alone, together, strict=True)] == [True] * 12
    assert denoiser_counts.samples == sum(request.steps for request in requests)
    assert denoiser_counts.mean_batch > 1.0


def test_batch_of_three_equals_three_single_requests(ddim: Server) -> None:
    prompts, seeds, scales = ["a red circle", "a blue star", "a green square"], [1, 2, 3], [3.0, 5.0, 7.0]
    batch = send(ddim.http, ImageRequest(4, prompts, seed=seeds, guidance_scale=scales))
    for index in range(3):
        single = ImageRequest(4, [prompts[index]], seed=[seeds[index]], guidance_scale=[scales[index]])
        assert psnr(send(ddim.http, single)[0], batch[index]) >= _SAME_DB


def test_num_images_of_the_client_are_those_of_a_request_per_seed(ddim: Server) -> None:
    server = client.Server(ddim.http.removeprefix("http://"))

    def images_of_client(*arguments: str) -> list[Pixels]:
        sent = client.inputs(client.parser().parse_args([_PROMPT, "--steps", "4", *arguments]))
        files = server.send(client.InferenceCall("generate_4_pipeline", sent))["encoded_image"]
        return [np.asarray(Image.open(io.BytesIO(file))) for file in files]

    together = images_of_client("--seed", "5", "--num-images", "3")
    alone = [image for seed in (5, 6, 7) for image in images_of_client("--seed", str(seed))]
    assert [psnr(one, other) >= _SAME_DB for one, other in zip(together, alone, strict=True)] == [True] * 3
    assert psnr(together[0], together[1]) < _SAME_DB


def test_same_request_gives_the_same_bits(ddim: Server) -> None:
    request = ImageRequest(4, [_PROMPT], seed=[11])
    assert np.array_equal(send(ddim.http, request), send(ddim.http, request))


def test_prompt_is_enough_and_changes_the_image(ddim: Server) -> None:
    first, second = (
        send(ddim.http, ImageRequest(4, [_PROMPT])),
        send(ddim.http, ImageRequest(4, ["a small green star"])),
    )
    assert first.shape == (1, 64, 64, 3)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("text", ["", "x" * 5000, "shape " * 300, "שלום 🟥 ﷽", "a\0b", "<|endoftext|> x"])
def test_any_text_is_a_prompt(ddim: Server, text: str) -> None:
    assert send(ddim.http, ImageRequest(4, [text])).shape == (1, 64, 64, 3)


_GOOD = ImageRequest(4, [_PROMPT])


@pytest.mark.parametrize(
    ("bad_request", "says"),
    [
        (replace(_GOOD, height=[256]), "height 256 is not supported: send a multiple of 8 from 64 to 128 pixels"),
        (replace(_GOOD, width=[65]), "width 65 is not supported: send a multiple of 8 from 64 to 128 pixels"),
        (replace(_GOOD, height=[-64]), "height -64 is not supported: send a multiple of 8"),
        (replace(_GOOD, guidance_scale=[float("nan")]), "guidance_scale nan is not a finite number"),
        (replace(_GOOD, guidance_scale=[float("inf")]), "guidance_scale inf is not a finite number"),
        (ImageRequest(4, [_PROMPT] * 2, height=[64, 128]), "height differs within one request"),
        (ImageRequest(4, [_PROMPT] * 9), "batch-size must be <= 8"),
        (ImageRequest(4, [_PROMPT] * 2, seed=[1]), "batch size does not match"),
        (ImageRequest(4, [_PROMPT] * 2, seed=[1, 2, 3]), "batch size does not match"),
        (replace(_GOOD, guidance_scale=[float("-inf")]), "guidance_scale -inf is not a finite number"),
        (ImageRequest(4, []), "prompt"),
        (replace(_GOOD, steps=5), "unknown model"),
    ],
)
def test_bad_request_is_told_what_to_send(ddim: Server, bad_request: ImageRequest, says: str) -> None:
    with pytest.raises(InferenceServerException) as caught:
        send(ddim.http, bad_request)
    assert says in str(caught.value)
    assert send(ddim.http, _GOOD).shape == (1, 64, 64, 3)


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (tensor("seed", "FP32", np.ones((1, 1), np.float32)), "seed"),
        (tensor("height", "INT64", np.full((1, 1), 64, np.int64)), "height"),
        (tensor("strength", "FP32", np.ones((1, 1), np.float32)), "strength"),
        (tensor("seed", "INT64", np.ones((1, 2), np.int64)), "seed"),
    ],
)
def test_wrong_dtype_shape_or_name_is_named(ddim: Server, extra: object, says: str) -> None:
    with pytest.raises(InferenceServerException) as caught:
        answer(ddim.http, "generate_4_pipeline", [*inputs(_GOOD), extra])
    assert says in str(caught.value)


def test_bad_requests_spoil_nothing_for_others_in_the_same_batches(ddim: Server) -> None:
    requests = [ImageRequest(4, [_PROMPT], seed=[index]) for index in range(4)]
    alone = [send(ddim.http, request) for request in requests]

    def outcome(request: ImageRequest) -> Pixels | str:
        try:
            return send(ddim.http, request)
        except InferenceServerException as error:
            return str(error)

    bad = replace(_GOOD, guidance_scale=[float("nan")])
    mixed = [request for good in requests for request in (good, bad)]
    with ThreadPoolExecutor(len(mixed)) as pool:
        # Once in about ten rounds a good request was rejected, while models read a request at the same time.
        for _ in range(40):
            results = list(pool.map(outcome, mixed))
            assert ["not a finite number" in str(result) for result in results[1::2]] == [True] * 4
            good = [result for result in results[::2] if not isinstance(result, str)]
            assert len(good) == 4, results
            assert all(psnr(one, other) >= _SAME_DB for one, other in zip(alone, good, strict=True))


def test_the_smoke_test_passes_a_server_and_rejects_a_dead_one(ddim: Server, built: Built) -> None:
    repository = Store(built.store).get(Kind.REPOSITORY, built.repository)
    assert smoke_test(ddim.http, repository, 300.0) == ("generate_4_pipeline", "generate_20_pipeline")
    with pytest.raises(SmokeTestError, match="does not answer"):
        smoke_test("http://127.0.0.1:1", repository, 1.0)
