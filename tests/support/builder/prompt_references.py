"""What the libraries of two prompt syntaxes make of prompts: fragments with weights, and embeddings.

The libraries are in no environment of the project; what they compute is kept as files. Made with compel 2.5.1, and with
the community pipeline lpw_stable_diffusion of diffusers for the syntax of A1111. Again, in a scratch environment with
the builder's dependencies, with that pipeline's file as argument:

    uv run --with compel==2.5.1 python -m tests.support.builder.prompt_references lpw_stable_diffusion.py
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests.support.builder.checkpoints import write_tokenizer
from tests.support.builder.parts import POOLED_WIDTH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDER = Path(__file__).parent / "golden" / "prompts"
# The libraries have no types.
_Library = Any
_TEXT: _Library = CLIPTextModel
_POOLED_TEXT: _Library = CLIPTextModelWithProjection
_TOKENIZER: _Library = CLIPTokenizer
A1111_PROMPTS: Sequence[str] = (
    "a red cat", "a (red) cat", "a ((red)) cat", "(a red:1.4) [cat]", "a (((red:1.3)) [ci] a (cat:0.5), it",
    r"a \(red\) cat\\", "(red", "red) cat]", "(red)(cat)", "", "()", "a (b [c] d:0.7) e", "x (y:-0.5)",
    "a very long (red:1.2) text of (many words that:0.8) end behind it",
)  # fmt: skip
COMPEL_PROMPTS: Sequence[str] = (
    "a red cat", "a red++ cat", "a red- cat--", "(a red)1.4 cat", "(a red)0.5 cat", '"a red"++ (cat)0.0', "",
    "a (b (c)++ d)1.2 e-", r"a \(red\) cat+", "x (y", "well-known, a,b+", "(a, b.)- c", "(a)0.3 (b)0.6 (c)1.5",
    "a very long (red)0.7 text of (many words that)0.8 end behind it",
)  # fmt: skip


def write_text_encoder(folder: Path, tokens: int, number: int) -> None:
    """Write the first or second encoder, with weights that are the same in every version of torch."""
    shared: Mapping[str, Any] = {
        "vocab_size": tokens, "intermediate_size": 48, "num_attention_heads": 2, "max_position_embeddings": 16,
        "bos_token_id": tokens - 5, "eos_token_id": tokens - 4,
    }  # fmt: skip
    if number == 1:
        model = _TEXT(CLIPTextConfig(hidden_size=32, projection_dim=32, num_hidden_layers=3, **shared))
    else:
        config = CLIPTextConfig(hidden_size=40, projection_dim=POOLED_WIDTH, num_hidden_layers=3, **shared)
        model = _POOLED_TEXT(config)
    random = np.random.default_rng(number)
    for name, parameter in sorted(model.named_parameters()):
        values = torch.from_numpy(random.standard_normal(tuple(parameter.shape), np.float32))
        is_scale = "norm" in name and name.endswith("weight")
        parameter.data = 1.0 + 0.1 * values if is_scale else 0.25 * values + 0.1 * ("norm" in name)
    model.save_pretrained(folder)


def write_encoders(folder: Path) -> None:
    """Write both tokenizers and text encoders, in the folders of a checkpoint."""
    tokens = write_tokenizer(folder / "tokenizer")
    write_tokenizer(folder / "tokenizer_2", padding="!")
    for number, name in enumerate(("text_encoder", "text_encoder_2"), 1):
        write_text_encoder(folder / name, tokens, number)


def load_references(name: str) -> Mapping[str, Mapping[str, Any]]:
    """By prompt: `fragments`, and embeddings as lists; `a1111`, `compel` or `compel-xl`."""
    references: Mapping[str, Mapping[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text())
    return references


def _numbers(tensor: torch.Tensor) -> Any:  # noqa: ANN401 - any JSON
    return np.round(tensor.detach().squeeze(0).double().numpy(), 5).tolist()


def _a1111(script: Path, pipe: SimpleNamespace) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("lpw", script)
    assert spec is not None
    assert spec.loader is not None
    library: _Library = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(library)
    return {
        prompt: {
            "fragments": library.parse_prompt_attention(prompt),
            "embeddings": _numbers(
                library.get_weighted_text_embeddings(pipe, prompt, "", max_embeddings_multiples=1)[0]
            ),
        }
        for prompt in A1111_PROMPTS
    }


def _compel(folder: Path) -> dict[str, Any]:
    library: _Library = importlib.import_module("compel")
    parser: _Library = importlib.import_module("compel.prompt_parser").PromptParser()
    compel = library.Compel(_TOKENIZER.from_pretrained(folder / "tokenizer"), _loaded(folder, 1))
    return {
        prompt: {
            "fragments": [[part.text, part.weight] for part in parser.parse_conjunction(prompt).prompts[0].children],
            "embeddings": _numbers(compel(prompt)),
        }
        for prompt in COMPEL_PROMPTS
    }


def _compel_xl(folder: Path) -> dict[str, Any]:
    library: _Library = importlib.import_module("compel.convenience_wrappers")
    pipe = SimpleNamespace(
        tokenizer=_TOKENIZER.from_pretrained(folder / "tokenizer"), text_encoder=_loaded(folder, 1),
        tokenizer_2=_TOKENIZER.from_pretrained(folder / "tokenizer_2"), text_encoder_2=_loaded(folder, 2),
    )  # fmt: skip
    compel = library.CompelForSDXL(pipe)
    # Of longer ones it makes several windows.
    conditions = {prompt: compel(prompt) for prompt in COMPEL_PROMPTS[:-1]}
    return {
        prompt: {"embeddings": _numbers(condition.embeds), "pooled": _numbers(condition.pooled_embeds)}
        for prompt, condition in conditions.items()
    }


def _loaded(folder: Path, number: int) -> _Library:
    name = "text_encoder" if number == 1 else "text_encoder_2"
    return (_TEXT if number == 1 else _POOLED_TEXT).from_pretrained(folder / name).eval()


def _write(name: str, references: Mapping[str, Any]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    lines = (f"{json.dumps(prompt)}: {json.dumps(entry)}" for prompt, entry in references.items())
    (FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


@torch.no_grad()
def _main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_encoders(folder)
        model = _loaded(folder, 1)

        def encode(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - the library's
            return model(*arguments, **options)

        encode.text_model = model  # type: ignore[attr-defined]
        tokenizer = _TOKENIZER.from_pretrained(folder / "tokenizer")
        pipe = SimpleNamespace(tokenizer=tokenizer, text_encoder=encode, device="cpu")
        _write("a1111", _a1111(Path(sys.argv[1]), pipe))
        _write("compel", _compel(folder))
        _write("compel-xl", _compel_xl(folder))


if __name__ == "__main__":
    _main()
