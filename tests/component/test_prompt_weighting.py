"""Weights in prompts reach the denoiser as the library of each syntax computes them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from diffusion_builder.errors import BadInputError
from diffusion_builder.parity import in_process
from diffusion_builder.stages.build import build
from diffusion_builder.store import Kind, Store
from diffusion_contract.documents import read_local
from tests.support.builder import parts
from tests.support.builder.checkpoints import write_checkpoint
from tests.support.builder.prompt_references import (
    A1111_PROMPTS,
    COMPEL_PROMPTS,
    load_references,
    write_encoders,
)
from tests.support.builder.repository import SHAPES, context
from tests.support.builder.xl_checkpoints import write_xl_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from diffusion_builder.parity.in_process import InProcessServer

_one_thread = pytest.fixture(autouse=True, scope="module")(parts.one_thread)
# The libraries have no types.
_Text: Any = CLIPTextModel
_PooledText: Any = CLIPTextModelWithProjection
_WINDOW = 16


def _checkpoint(folder: Path, family: str) -> Path:
    """With the text encoders that the references were made with."""
    is_xl = family == "StableDiffusionXL"
    checkpoint = write_xl_checkpoint(folder, force_zeros=False) if is_xl else write_checkpoint(folder)
    write_encoders(folder.parent / "encoders")
    names = ("text_encoder", "text_encoder_2") if is_xl else ("text_encoder",)
    for name in names:
        shutil.rmtree(checkpoint / name)
        shutil.copytree(folder.parent / "encoders" / name, checkpoint / name)
    return checkpoint


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., InProcessServer]]:
    """Repositories by family and options of the model, each built once."""
    servers: dict[str, InProcessServer] = {}
    open_: list[Any] = []

    def of(family: str, **options: Any) -> InProcessServer:  # noqa: ANN401 - any JSON
        key = json.dumps([family, options], sort_keys=True)
        if key not in servers:
            root = tmp_path_factory.mktemp("prompts")
            source = {"path": str(_checkpoint(root / "checkpoint", family))}
            spec = read_local(
                {
                    "model": {"source": source, "family": family, **options},
                    "shapes": json.loads(SHAPES),
                    "pipelines": [{"task": "generate", "steps": [2]}],
                }
            )
            store = Store(root / "store")
            results = build(context(store.root), spec)
            # The prompts of the stage parity have no syntax: they mean what they mean to diffusers.
            assert results[-1]["worstPSNR"] >= results[-1]["minPSNR"] == 35.0
            repository = store.get(Kind.REPOSITORY, str(results[-2]["digest"]))
            loading = in_process.load_repository(store, repository)
            servers[key] = loading.__enter__()
            open_.append(loading)
        return servers[key]

    yield of
    for loading in open_:
        loading.__exit__(None, None, None)


def _texts(*texts: str) -> NDArray[Any]:
    return np.array([text.encode() for text in texts], object).reshape(-1, 1)


def _embeddings(server: InProcessServer, prompts: Sequence[str], *names: str, **inputs: str) -> Sequence[NDArray[Any]]:
    """Tensors of a request, of its positive prompts; the negative ones are the same in reverse order."""
    request = {"prompt": _texts(*prompts), "negative_prompt": _texts(*reversed(prompts))}
    request |= {name: _texts(*[text] * len(prompts)) for name, text in inputs.items()}
    ensemble = server.ensembles["generate_2_pipeline"]
    outputs = in_process.execute(ensemble, request, names, lambda step: server.runs[step.model.name])
    for name in names:
        np.testing.assert_allclose(outputs[name][:, 0], outputs[name][::-1, 1], atol=1e-5)
    return [outputs[name][:, 1] for name in names]


@pytest.mark.parametrize(("syntax", "prompts"), [("A1111", A1111_PROMPTS), ("Compel", COMPEL_PROMPTS)])
def test_embeddings_are_those_of_the_library(
    serve: Callable[..., InProcessServer], syntax: str, prompts: Sequence[str]
) -> None:
    references = load_references(syntax.lower())
    (actual,) = _embeddings(serve("StableDiffusion", promptWeighting=syntax), prompts, "text_embeddings")
    for prompt, embeddings in zip(prompts, actual, strict=True):
        np.testing.assert_allclose(embeddings, references[prompt]["embeddings"], atol=2e-4, err_msg=prompt)


def test_both_encoders_of_stable_diffusion_xl_weigh_as_compel(serve: Callable[..., InProcessServer]) -> None:
    references = load_references("compel-xl")
    server = serve("StableDiffusionXL", promptWeighting="Compel")
    embeddings, pooled = _embeddings(server, list(references), "text_embeddings", "pooled_embeddings")
    for index, (prompt, reference) in enumerate(references.items()):
        np.testing.assert_allclose(embeddings[index], reference["embeddings"], atol=2e-4, err_msg=prompt)
        np.testing.assert_allclose(pooled[index], reference["pooled"], atol=2e-4, err_msg=prompt)


@torch.no_grad()
def _states(folder: Path, windows: Sequence[Sequence[Sequence[int]]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Penultimate layers of both encoders side by side, windows one after the other; the pooled embedding."""
    hidden = []
    for model_class, name, ids in zip(
        (_Text, _PooledText), ("text_encoder", "text_encoder_2"), windows, strict=True
    ):  # fmt: skip
        output = model_class.from_pretrained(folder / name)(torch.tensor(ids), output_hidden_states=True)
        hidden.append(output.hidden_states[-2])
    return torch.cat(hidden, dim=-1).flatten(0, 1).numpy(), output.text_embeds[0].numpy()


def _windows(server: InProcessServer, prompt: str) -> list[list[list[int]]]:
    """Ids of the windows, of both tokenizers."""
    names = ("input_ids", "input_ids_2")
    ids = server.runs["1_tokenizer"]({"prompt": _texts(prompt)}, names)
    return [ids[name][0, 1].reshape(-1, _WINDOW).tolist() for name in names]


def test_long_prompts_of_stable_diffusion_xl_are_windows_of_both_encoders(
    serve: Callable[..., InProcessServer], tmp_path: Path
) -> None:
    server = serve("StableDiffusionXL", longPrompts=True)
    write_encoders(tmp_path)
    prompt = "a red cat and a text that is a good deal longer than one window has room for"
    windows = _windows(server, prompt)
    assert 1 < len(windows[0]) <= 4
    embeddings, pooled = _embeddings(server, [prompt, "red"], "text_embeddings", "pooled_embeddings")
    expected, expected_pooled = _states(tmp_path, windows)
    np.testing.assert_allclose(embeddings[0], expected, atol=2e-4)
    np.testing.assert_allclose(pooled[0], expected_pooled, atol=2e-4)


def test_a_break_begins_another_window_and_each_window_keeps_its_mean(
    serve: Callable[..., InProcessServer], tmp_path: Path
) -> None:
    server = serve("StableDiffusionXL", longPrompts=True, promptWeighting="A1111")
    write_encoders(tmp_path)
    prompt = "a (red:1.5) cat BREAK [it] is"
    windows = _windows(server, prompt)
    assert len(windows[0]) == 2
    (embeddings,) = _embeddings(server, [prompt], "text_embeddings")
    states, _ = _states(tmp_path, windows)
    weights = np.ones((2, _WINDOW), np.float32)
    # Of "a", of "red" and of "it": letters are tokens, as "red" is.
    weights[0, 2], weights[1, 1:3] = 1.5, 1 / 1.1
    scaled, begin = [], 0
    for width in (32, 40):
        parts_ = states[:, begin : begin + width].reshape(2, _WINDOW, width)
        heavier = parts_ * weights[..., None]
        ratio = parts_.mean(axis=(1, 2), keepdims=True) / heavier.mean(axis=(1, 2), keepdims=True)
        scaled.append((heavier * ratio).reshape(2 * _WINDOW, width))
        begin += width
    # Means of few features are small: float32 has fewer digits of them.
    np.testing.assert_allclose(embeddings[0], np.concatenate(scaled, axis=-1), rtol=1e-3, atol=1e-3)


_REFUSED: Mapping[str, tuple[str, str]] = {
    "a break without room": ("a BREAK b", "BREAK, which needs a second window: build the pipeline with longPrompts"),
    "a break in brackets": ("(a BREAK b)", "BREAK inside of brackets"),
    "a lora": ("a <lora:style:0.8>", "'<lora:style:0.8>', which is not supported: add it to model.loras"),
    "and": ("a cat AND a dog", "'AND', which is not supported"),
    "prompt editing": ("a [cat:dog:0.5]", "changes it from step to step"),
    "alternating words": ("a [cat|dog]", "changes it from step to step"),
    "no number": ("a (cat:1.2.3)", "the weight '1.2.3', which is no number"),
    "too deep": ("(" * 40, "more than 32 brackets"),
    "infinity": ("(a:" + "9" * 400 + ")", "weight is not finite"),
}


@pytest.mark.parametrize("name", _REFUSED)
def test_syntax_of_a1111_that_is_not_supported_is_named(serve: Callable[..., InProcessServer], name: str) -> None:
    prompt, says = _REFUSED[name]
    server = serve("StableDiffusion", promptWeighting="A1111")
    for field in ("prompt", "negative_prompt"):
        with pytest.raises(BadInputError) as caught:
            server.generate("generate_2_pipeline", {"prompt": _texts("a"), field: _texts(prompt)})
        assert f"{field} has" in str(caught.value)
        assert says in str(caught.value)


@pytest.mark.parametrize("operator", ["and", "blend", "swap", "attend"])
def test_operators_of_compel_are_named(serve: Callable[..., InProcessServer], operator: str) -> None:
    server = serve("StableDiffusion", promptWeighting="Compel")
    with pytest.raises(BadInputError, match=rf"prompt has {operator}\(\), which is not supported"):
        server.generate("generate_2_pipeline", {"prompt": _texts(f'("a", "b").{operator}(0.5, 0.5)')})
    with pytest.raises(BadInputError, match=r"prompt has 9 texts of weights below 1: at most 7"):
        server.generate("generate_2_pipeline", {"prompt": _texts("a- b-- " * 4 + "a-")})


def test_without_the_option_brackets_are_text(serve: Callable[..., InProcessServer]) -> None:
    plain = serve("StableDiffusion")
    with_brackets, without = (
        plain.runs["1_tokenizer"]({"prompt": _texts(text)}, ("input_ids",))["input_ids"] for text in ("(a)", "a")
    )
    assert not np.array_equal(with_brackets, without)
