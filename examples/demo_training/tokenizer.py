"""A CLIP tokenizer whose vocabulary is our own: every byte, and each word of the captions as one token."""

import itertools
import json
from collections import Counter
from pathlib import Path

from transformers import CLIPTokenizer

from .words import every_scene

START, END = "<|startoftext|>", "<|endoftext|>"
# The longest caption has 12 words; with the two marks that leaves room for ten more.
MAX_TOKENS = 24


def make_tokenizer() -> CLIPTokenizer:
    """Build the tokenizer; the same every time."""
    words = sorted({word for scene in every_scene() for word in scene.caption.split()})
    merges = _merges(words)
    alphabet = [*_byte_letters(), *(f"{letter}</w>" for letter in _byte_letters())]
    tokens = [*alphabet, *("".join(pair) for pair in merges), START, END]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)  # type: ignore[arg-type]


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write the tokenizer with the classic pair `vocab.json` and `merges.txt` beside what transformers writes."""
    tokenizer.save_pretrained(folder)
    vocabulary = dict(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    merges = json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")


def _merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair encoding (Sennrich et al. 2016): join the most frequent neighbours until every word is one token."""
    spelled = [[*word[:-1], f"{word[-1]}</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for word in spelled for pair in itertools.pairwise(word)):
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        spelled = [_join(word, best) for word in spelled]
    return merges


def _join(word: list[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    for part in word:
        if joined and (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def _byte_letters() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, which CLIP's byte-level tokens are written in."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    unprintable = [byte for byte in range(256) if byte not in set(printable)]
    letters = {byte: chr(byte) for byte in printable}
    letters.update({byte: chr(256 + index) for index, byte in enumerate(unprintable)})
    return [letters[byte] for byte in range(256)]
