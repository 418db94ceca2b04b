"""Prompts are read as the libraries of their syntaxes read them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_builder.models import a1111_syntax, compel_syntax
from diffusion_builder.models.errors import InvalidRequest
from diffusion_builder.models.prompt_tokens import PromptTokens, TokenizerConfig
from diffusion_builder.models.weighted_text import Break, Fragment
from diffusion_builder.sources import tokens
from diffusion_contract.enums import PromptWeighting
from tests.support.builder.checkpoints import write_tokenizer
from tests.support.builder.prompt_references import A1111_PROMPTS, COMPEL_PROMPTS, load_references

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_ROOM = 14


@pytest.mark.parametrize("prompt", A1111_PROMPTS)
def test_fragments_of_a1111(prompt: str) -> None:
    expected = [Fragment(text, weight) for text, weight in load_references("a1111")[prompt]["fragments"]]
    actual = a1111_syntax.parse(prompt) or [Fragment("", 1.0)]
    assert [part.text for part in actual if isinstance(part, Fragment)] == [part.text for part in expected]
    weights = [part.weight for part in actual if isinstance(part, Fragment)]
    assert weights == pytest.approx([part.weight for part in expected])


@pytest.mark.parametrize("prompt", COMPEL_PROMPTS)
def test_fragments_of_compel(prompt: str) -> None:
    expected = load_references("compel")[prompt]["fragments"]
    assert [[part.text, part.weight] for part in compel_syntax.parse(prompt)] == expected


def test_a_break_divides_a_prompt() -> None:
    assert a1111_syntax.parse("a BREAK (b)") == [Fragment("a", 1.0), Break(), Fragment("", 1.0), Fragment("b", 1.1)]
    assert a1111_syntax.parse("aBREAK b") == [Fragment("aBREAK b", 1.0)]


def _refusal(parse: Callable[[str], Sequence[object]], prompt: str) -> str:
    """What a syntax answers to a prompt that it does not read; nothing to one that it does."""
    try:
        parts = parse(prompt)
    except InvalidRequest as error:
        return str(error)
    assert all(isinstance(part, Fragment | Break) for part in parts)
    return "prompt has parts"


@pytest.mark.parametrize("parse", [a1111_syntax.parse, compel_syntax.parse])
@given(prompt=st.text(st.sampled_from('()[]:.+-"\\ ,a1|<>BREAK'), max_size=60))
def test_any_text_is_read_or_rejected_by_name(parse: Callable[[str], Sequence[object]], prompt: str) -> None:
    assert "prompt has" in _refusal(parse, prompt)


@pytest.mark.parametrize("parse", [a1111_syntax.parse, compel_syntax.parse])
@pytest.mark.parametrize("text", ["(", "((a)", "(a ", "[", '"', '"a ', "a+", "\\", "(a)1.2 ", "a:", "(a)[b]"])
def test_hostile_prompts_take_no_quadratic_time(parse: Callable[[str], Sequence[object]], text: str) -> None:
    begin = time.monotonic()
    assert "prompt has" in _refusal(parse, text * 20_000)
    assert time.monotonic() - begin < 5


def _prompt_tokens(folder: Path, weighting: PromptWeighting, windows: int) -> PromptTokens:
    write_tokenizer(folder / "tokenizer")
    path = folder / "tokenizer.json"
    path.write_text(tokens.load(folder / "tokenizer").to_str())
    return PromptTokens(path, TokenizerConfig(windows=windows, weighting=weighting))


def test_a_long_prompt_has_as_many_windows_as_it_needs(tmp_path: Path) -> None:
    prompt_tokens = _prompt_tokens(tmp_path, PromptWeighting.NONE, 4)
    short, long, longest = prompt_tokens.encode("prompt", ["red", "red " * (_ROOM + 1), "red " * 99])
    assert [len(prompt.ids) // (_ROOM + 2) for prompt in (short, long, longest)] == [1, 2, 4]
    assert np.array_equal(short.ids, prompt_tokens.raw(["red"])[0])
    extended = prompt_tokens.extend(short, len(long.ids))
    assert np.array_equal(extended.ids[-len(prompt_tokens.empty) :], prompt_tokens.empty)
    assert np.array_equal(extended.weights, np.ones(len(long.ids)))


def test_a1111_divides_windows_behind_a_comma(tmp_path: Path) -> None:
    prompt_tokens = _prompt_tokens(tmp_path, PromptWeighting.A1111, 4)
    (prompt,) = prompt_tokens.encode("prompt", ["red " * (_ROOM - 4) + "red, (red red red red red:1.5)"])
    windows = prompt.ids.reshape(-1, _ROOM + 2)
    red, comma = windows[0][1], prompt_tokens.raw([","])[0][1]
    assert [int((window == red).sum()) for window in windows] == [_ROOM - 3, 5]
    assert windows[0][_ROOM - 2] == comma
    assert prompt.weights.reshape(-1, _ROOM + 2)[1].tolist() == [1.0, *[1.5] * 5, *[1.0] * 10]


@pytest.mark.parametrize(
    ("prompt", "windows"), [("a BREAK b", 2), ("BREAK a", 2), ("a BREAK", 1), ("a BREAK BREAK b", 3), ("BREAK", 1)]
)
def test_breaks_fill_windows(tmp_path: Path, prompt: str, windows: int) -> None:
    (encoded,) = _prompt_tokens(tmp_path, PromptWeighting.A1111, 4).encode("prompt", [prompt])
    assert len(encoded.ids) == windows * (_ROOM + 2)
