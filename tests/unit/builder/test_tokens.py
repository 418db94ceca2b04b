"""Prompts become the token ids that CLIPTokenizer gives."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from transformers import CLIPTokenizer

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.sources import tokens
from tests.support.builder.checkpoints import DEMO, write_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

_TEXTS = [
    "",
    "a red circle",
    "A  Red\tCIRCLE\n on a blue background!",
    "it's the dog's 42nd birthday, isn't it?",
    "<|startoftext|> in <|endoftext|> the middle<|endoftext|>",
    "word " * 200,
    "é e\u0301 ﬁ ① Å",
    "日本語 🟥👩‍👩‍👧 שלום",
    "a\0b \u200b \ufeff",
    "red-green/blue_1234567890",
]


@pytest.fixture(scope="module", params=["written", "demo"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "demo" and (DEMO / "tokenizer").is_dir():
        return DEMO / "tokenizer"
    target = tmp_path_factory.mktemp("tokenizer") / "files"
    write_tokenizer(target)
    return target


@pytest.mark.parametrize("text", _TEXTS)
def test_ids_equal_clip_tokenizer_with_padding_and_truncation(folder: Path, text: str) -> None:
    theirs = CLIPTokenizer.from_pretrained(folder)
    expected = theirs(text, padding="max_length", max_length=theirs.model_max_length, truncation=True).input_ids
    ours = tokens.load(folder)
    assert ours.encode(text).ids == expected
    assert tokens.length(ours) == theirs.model_max_length


def test_tokenizer_json_alone_gives_the_same_ids(folder: Path, tmp_path: Path) -> None:
    CLIPTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).unlink(missing_ok=True)
    assert (tmp_path / "tokenizer.json").exists()
    for text in _TEXTS:
        assert tokens.load(tmp_path).encode(text).ids == tokens.load(folder).encode(text).ids


def _broken(tmp_path: Path, **config: object) -> Path:
    target = tmp_path / "files"
    write_tokenizer(target)
    path = target / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return target


@pytest.mark.parametrize("length", [None, 0, 2, 10**30, "77"])
def test_absurd_length_is_refused(tmp_path: Path, length: object) -> None:
    with pytest.raises(BadInputError, match="model_max_length") as caught:
        tokens.load(_broken(tmp_path, model_max_length=length))
    assert caught.value.reason is Reason.INVALID_CONFIG


def test_special_token_that_is_not_in_the_vocabulary_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="<pad>"):
        tokens.load(_broken(tmp_path, pad_token={"content": "<pad>"}))


def test_missing_vocabulary_is_named(tmp_path: Path) -> None:
    target = _broken(tmp_path)
    (target / "merges.txt").unlink()
    with pytest.raises(BadInputError, match=r"vocab\.json with merges\.txt") as caught:
        tokens.load(target)
    assert caught.value.reason is Reason.MISSING_FILE
