"""A checkpoint's CLIP tokenizer as one file of the `tokenizers` library, with padding and truncation inside.

transformers' own `CLIPTokenizer` loads the folder, so that whichever files it has (tokenizer.json, vocab.json with
merges.txt, added_tokens.json, special_tokens_map.json, `added_tokens_decoder` in tokenizer_config.json) mean what they
mean there. Its modules need no torch. Servers read the file with `tokenizers` alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.sources import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tokenizers import Tokenizer

# What a tokenizer_config.json could say that the file for the server cannot hold, or that makes transformers read
# something besides the files of the folder.
_UNSUPPORTED = ("gguf_file", "init_inputs", "merges", "split_special_tokens", "tokenizer_object", "vocab")
_MAX_LISTED = 5


def load(folder: Path) -> Tokenizer:
    """Read a checkpoint's tokenizer folder.

    Returns:
        A tokenizer that pads and truncates to the checkpoint's `model_max_length`, and gives the ids that
        `CLIPTokenizer(text, padding="max_length", truncation=True)` gives.

    Raises:
        BadInputError: files are missing or do not belong together, or a setting is not supported.
    """
    _check_files(folder)
    _check_settings(read_json(folder, "tokenizer_config.json"))
    # Loaded late: it takes a second.
    from transformers import CLIPTokenizer

    library: Any = CLIPTokenizer
    try:
        tokenizer = library.from_pretrained(folder, local_files_only=True)
        # Its Python side only sets these on the library's tokenizer before each call.
        tokenizer("", padding="max_length", max_length=tokenizer.model_max_length, truncation=True)
    except Exception as error:  # both libraries raise plain exceptions of any class
        raise BadInputError(
            Reason.INVALID_CONFIG,
            f"transformers' CLIPTokenizer cannot read the tokenizer: {_first_line(error)}; its files do not fit",
        ) from error
    backend: Tokenizer = tokenizer.backend_tokenizer
    return backend


def length(tokenizer: Tokenizer) -> int:
    """Tokens per prompt, with start, end and padding."""
    truncation: Mapping[str, Any] = tokenizer.truncation or {}
    return int(truncation["max_length"])


def check_windows(tokenizer: Tokenizer) -> None:
    """Reject a tokenizer whose prompts cannot be put together from parts.

    Raises:
        BadInputError: it does not pad behind the prompt, or does not put one token before it and one behind.
    """
    padding: Mapping[str, Any] = tokenizer.padding or {}
    plain = tokenizer.encode("", add_special_tokens=False)
    special = sum(tokenizer.encode("").attention_mask) - sum(plain.attention_mask)
    if padding.get("direction") != "right" or special != 2:  # noqa: PLR2004 - start and end
        raise BadInputError(
            Reason.INVALID_CONFIG,
            "longPrompts and promptWeighting need a tokenizer with a start token, an end token, and padding behind "
            "them: set padding_side to right in tokenizer_config.json, or leave both options out",
        )


def check_embeddings(tokenizer: Tokenizer, embeddings: int) -> None:
    """Compare the vocabulary with the text encoder's.

    Args:
        tokenizer: with the added tokens.
        embeddings: tokens for which the text encoder has one.

    Raises:
        BadInputError: a prompt could hold a token that the text encoder does not know.
    """
    beyond = {token: index for token, index in tokenizer.get_vocab().items() if index >= embeddings}
    if beyond:
        tokens = ", ".join(f"{token!r} ({index})" for token, index in sorted(beyond.items())[:_MAX_LISTED])
        raise BadInputError(
            Reason.COMPONENT_MISMATCH,
            f"the tokenizer has the tokens {tokens}, the text encoder has embeddings for {embeddings}: take the "
            "text_encoder that was saved with this tokenizer, whose embeddings were resized",
        )


def _check_files(folder: Path) -> None:
    files = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    # Without a vocabulary transformers makes one of three tokens up; without merges it finds none.
    if not {"vocab.json", "merges.txt"} <= files and "tokenizer.json" not in files:
        raise BadInputError(Reason.MISSING_FILE, "tokenizer has neither vocab.json with merges.txt nor tokenizer.json")


def _check_settings(config: Mapping[str, Any]) -> None:
    for name in _UNSUPPORTED:
        if config.get(name):
            raise BadInputError(
                Reason.INVALID_CONFIG, f"tokenizer_config.json has {name}, which is not supported: remove it"
            )
    longest = config.get("model_max_length")
    if not isinstance(longest, int) or not 3 <= longest <= 4096:  # noqa: PLR2004 - start, a token, end
        raise BadInputError(Reason.INVALID_CONFIG, f"tokenizer_config.json has model_max_length {longest!r}")


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__
