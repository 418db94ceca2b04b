"""Prompts become the token ids that CLIPTokenizer gives."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import CLIPTokenizer

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.sources import tokens
from tests.support.builder.checkpoints import DEMO, write_tokenizer

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
_LIBRARY: Any = CLIPTokenizer
_CAT = "<cat-toy>"


def _theirs(folder: Path, text: str) -> list[int]:
    """What diffusers' pipelines give to the text encoder."""
    tokenizer = _LIBRARY.from_pretrained(folder, local_files_only=True)
    ids: list[int] = tokenizer(
        text, padding="max_length", max_length=tokenizer.model_max_length, truncation=True
    ).input_ids
    return ids


def _served(folder: Path) -> Tokenizer:
    """What a server loads: the text of the file is all that reaches it."""
    return Tokenizer.from_str(tokens.load(folder).to_str())


def _written(target: Path, **files: object) -> Path:
    """A tokenizer with further files, or with other entries in its configuration; None removes a file."""
    write_tokenizer(target)
    for name, content in files.items():
        file = target / f"{name}.json"
        if name == "tokenizer_config" and isinstance(content, dict):
            content = json.loads(file.read_text()) | content  # noqa: PLW2901 - completed
        file.write_text(json.dumps(content))
    return target


@pytest.fixture(scope="module", params=["written", "demo"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "demo" and (DEMO / "tokenizer").is_dir():
        return DEMO / "tokenizer"
    return _written(tmp_path_factory.mktemp("tokenizer") / "files")


@pytest.mark.parametrize("text", _TEXTS)
def test_ids_equal_clip_tokenizer_with_padding_and_truncation(folder: Path, text: str) -> None:
    assert _served(folder).encode(text).ids == _theirs(folder, text)
    assert tokens.length(tokens.load(folder)) == _LIBRARY.from_pretrained(folder).model_max_length


def test_tokenizer_json_alone_gives_the_same_ids(folder: Path, tmp_path: Path) -> None:
    _LIBRARY.from_pretrained(folder).save_pretrained(tmp_path)
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).unlink(missing_ok=True)
    assert (tmp_path / "tokenizer.json").exists()
    for text in _TEXTS:
        assert _served(tmp_path).encode(text).ids == _served(folder).encode(text).ids


@pytest.mark.parametrize("pad", ["!", {"content": "!", "lstrip": False, "normalized": False, "rstrip": False}])
def test_padding_of_stable_diffusion_2_is_an_exclamation_mark(tmp_path: Path, pad: object) -> None:
    # As published: tokenizer_config.json says end-of-text, special_tokens_map.json "!", and there is no tokenizer.json.
    folder = _written(tmp_path / "files", special_tokens_map={"pad_token": pad})
    ids = _served(folder).encode("a red circle").ids
    assert ids[-1] == json.loads((folder / "vocab.json").read_text())["!"]
    assert ids == _theirs(folder, "a red circle")


def _with_added_token(target: Path, how: str) -> Path:
    index = len(json.loads((_written(target) / "vocab.json").read_text()))
    decoder = {index: {"content": _CAT, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}}
    if how == "added_tokens":
        (target / "added_tokens.json").write_text(json.dumps({_CAT: index}))
    elif how == "added_tokens_decoder":
        config = json.loads((target / "tokenizer_config.json").read_text())
        (target / "tokenizer_config.json").write_text(json.dumps(config | {"added_tokens_decoder": decoder}))
    else:
        tokenizer = _LIBRARY.from_pretrained(target)
        tokenizer.add_tokens(_CAT)
        tokenizer.save_pretrained(target)
    return target


@pytest.mark.parametrize("how", ["added_tokens", "added_tokens_decoder", "saved"])
def test_token_of_textual_inversion_is_one_token(tmp_path: Path, how: str) -> None:
    folder = _with_added_token(tmp_path / "files", how)
    index = len(json.loads((folder / "vocab.json").read_text())) if how != "saved" else None
    served, text = _served(folder), f"a photo of {_CAT} on a table"
    assert served.encode(text).tokens.count(_CAT) == 1
    assert index in {served.token_to_id(_CAT), None}
    assert served.encode(text).ids == _theirs(folder, text)


_SPECIAL = ("!", "<|endoftext|>", "<|startoftext|>", "red</w>", "q", "<pad>")
_WORDS = ["red", "circle", "!", "!!", _CAT, "<CAT-toy>", "<pad>", "<|endoftext|>", "<new1>", " ", "\t", "'s", "12", "ﬁ"]
_text = st.lists(st.sampled_from(_WORDS) | st.text(max_size=6), max_size=14).map("".join)
_flags = st.fixed_dictionaries({}, optional=dict.fromkeys(("lstrip", "rstrip", "normalized"), st.booleans()))
_token = st.sampled_from(_SPECIAL) | st.builds(
    lambda content, flags: {"content": content, "lstrip": False, "rstrip": False, "normalized": False, **flags},
    st.sampled_from(_SPECIAL), _flags,
)  # fmt: skip
_special_map = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("pad_token", "unk_token"), _token)
    | {"additional_special_tokens": st.lists(st.sampled_from(["<new1>", "red"]), unique=True, max_size=2)},
)  # fmt: skip
_config_token = _token.map(lambda token: {"__type": "AddedToken", **token} if isinstance(token, dict) else token)
_settings = st.fixed_dictionaries(
    {"model_max_length": st.integers(3, 20)},
    optional={
        "pad_token": _config_token,
        "padding_side": st.sampled_from(["left", "right"]),
        "truncation_side": st.sampled_from(["left", "right"]),
        "add_prefix_space": st.booleans(),
        "do_lower_case": st.booleans(),
        "add_eos_token": st.booleans(),
    },
)
_added = st.lists(st.sampled_from([_CAT, "<new1>", "RED circle", "!!"]), unique=True, min_size=1)


@st.composite
def _folders(draw: st.DrawFn) -> dict[str, Any]:
    files: dict[str, Any] = {"tokenizer_config": draw(_settings)}
    if draw(st.booleans()):
        files["special_tokens_map"] = draw(_special_map)
    start = 517
    names = draw(st.none() | _added)
    if names and draw(st.booleans()):
        files["added_tokens"] = {name: start + place for place, name in enumerate(names)}
    elif names:
        files["tokenizer_config"]["added_tokens_decoder"] = {
            str(start + place): {"content": name, "special": draw(st.booleans()), **draw(_flags)}
            for place, name in enumerate(names)
        }
    files["saved"] = draw(st.sampled_from(["", "beside", "alone"]))
    return files


@settings(max_examples=150, deadline=None)
@given(_folders(), st.lists(_text, min_size=1, max_size=4))
def test_any_files_and_settings_give_the_ids_of_transformers(files: dict[str, Any], texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        saved = files.pop("saved")
        folder = _written(Path(scratch, "files"), **files)
        if saved:
            _LIBRARY.from_pretrained(folder).save_pretrained(folder)
        if saved == "alone":
            (folder / "vocab.json").unlink()
            (folder / "merges.txt").unlink()
        served = _served(folder)
        assert [served.encode(text).ids for text in texts] == [_theirs(folder, text) for text in texts]


@pytest.mark.parametrize("length", [None, 0, 2, 10**30, "77"])
def test_absurd_length_is_rejected(tmp_path: Path, length: object) -> None:
    with pytest.raises(BadInputError, match="model_max_length") as caught:
        tokens.load(_written(tmp_path / "files", tokenizer_config={"model_max_length": length}))
    assert caught.value.reason is Reason.INVALID_CONFIG


@pytest.mark.parametrize(
    "setting", [{"split_special_tokens": True}, {"vocab": "/etc/hostname"}, {"gguf_file": "x.gguf"}]
)
def test_setting_that_the_served_file_cannot_hold_is_named(tmp_path: Path, setting: dict[str, object]) -> None:
    with pytest.raises(BadInputError, match=f"has {next(iter(setting))}, which is not supported"):
        tokens.load(_written(tmp_path / "files", tokenizer_config=setting))


def test_tokens_without_an_embedding_are_named(tmp_path: Path) -> None:
    tokenizer = tokens.load(_written(tmp_path / "files", tokenizer_config={"pad_token": "<pad>"}))
    tokens.check_embeddings(tokenizer, 518)
    with pytest.raises(BadInputError, match=r"'<pad>' \(517\), the text encoder has embeddings for 517") as caught:
        tokens.check_embeddings(tokenizer, 517)
    assert caught.value.reason is Reason.COMPONENT_MISMATCH


def test_missing_vocabulary_is_named(tmp_path: Path) -> None:
    target = _written(tmp_path / "files")
    (target / "merges.txt").unlink()
    with pytest.raises(BadInputError, match=r"vocab\.json with merges\.txt") as caught:
        tokens.load(target)
    assert caught.value.reason is Reason.MISSING_FILE


@pytest.mark.parametrize("content", ["[]", '{"a": "b"}', "{", '{"a": 0}'])
def test_vocabulary_that_is_none_is_rejected(tmp_path: Path, content: str) -> None:
    target = _written(tmp_path / "files")
    (target / "vocab.json").write_text(content)
    with pytest.raises(BadInputError, match="cannot read the tokenizer"):
        tokens.load(target)
