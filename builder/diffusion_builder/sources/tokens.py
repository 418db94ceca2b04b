"""A checkpoint's CLIP tokenizer as one file of the `tokenizers` library, with padding and truncation inside.

Built from vocab.json and merges.txt the way transformers' `CLIPTokenizer` builds its own backend
(transformers/models/clip/tokenization_clip.py), so that assembling and serving need no torch.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.sources import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tokenizers import Tokenizer

_PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_START, _END = "<|startoftext|>", "<|endoftext|>"


def load(folder: Path) -> Tokenizer:
    """Read a checkpoint's tokenizer folder.

    Returns:
        A tokenizer that pads and truncates to the checkpoint's `model_max_length`.

    Raises:
        BadInputError: files are missing or do not belong together.
    """
    config = read_json(folder, "tokenizer_config.json")
    special = {
        name: _token(config.get(f"{name}_token"), default)
        for name, default in (("bos", _START), ("eos", _END), ("unk", _END), ("pad", _END))
    }
    vocabulary, merges = _vocabulary(folder)
    absent = sorted({token for token in special.values() if token not in vocabulary})
    if absent:
        raise BadInputError(Reason.INVALID_CONFIG, f"the tokenizer's special tokens {absent} are not in its vocabulary")
    length = config.get("model_max_length")
    if not isinstance(length, int) or not 3 <= length <= 4096:  # noqa: PLR2004 - start, a token, end
        raise BadInputError(Reason.INVALID_CONFIG, f"tokenizer_config.json has model_max_length {length!r}")
    return _build(vocabulary, merges, special, length)


def _token(value: object, default: str) -> str:
    """Special tokens are written as text or as an object with the text in `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else default


def _vocabulary(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        vocabulary: Mapping[str, Any] = read_json(folder, "vocab.json")
        lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
        pairs = [tuple(line.split(" ")) for line in lines if line.strip() and not line.startswith("#version")]
    elif (folder / "tokenizer.json").exists():
        model = read_json(folder, "tokenizer.json").get("model", {})
        vocabulary = model.get("vocab", {})
        pairs = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model.get("merges", [])]
    else:
        raise BadInputError(Reason.MISSING_FILE, "tokenizer has neither vocab.json with merges.txt nor tokenizer.json")
    return dict(vocabulary), [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]  # noqa: PLR2004 - pairs


def _build(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], special: Mapping[str, str], length: int
) -> Tokenizer:
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    try:
        model = models.BPE(
            vocab=vocabulary, merges=merges, continuing_subword_prefix="", end_of_word_suffix="</w>",
            fuse_unk=False, unk_token=special["unk"],
        )  # fmt: skip
    except Exception as error:  # the library raises plain Exception
        raise BadInputError(Reason.INVALID_CONFIG, f"vocabulary and merges do not fit: {error}") from error
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(_PATTERN), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in dict.fromkeys(special.values())])
    end, start = special["eos"], special["bos"]
    tokenizer.post_processor = processors.RobertaProcessing(
        (end, vocabulary[end]), (start, vocabulary[start]), trim_offsets=False, add_prefix_space=False
    )
    tokenizer.enable_truncation(max_length=length)
    tokenizer.enable_padding(length=length, pad_id=vocabulary[special["pad"]], pad_token=special["pad"])
    return tokenizer


def length(tokenizer: Tokenizer) -> int:
    """Tokens per prompt, with start, end and padding."""
    return int(json.loads(tokenizer.to_str())["truncation"]["max_length"])
