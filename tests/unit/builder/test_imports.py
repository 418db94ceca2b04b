"""What runs in the serving image, and what should be quick, loads nothing heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.builder.checkpoints import write_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

_HEAVY = ["torch", "diffusers", "transformers", "onnx", "onnxruntime", "huggingface_hub"]


def _run(*command: str) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True, env=environment)
    return process.stdout


def _loaded(code: str, names: list[str]) -> list[str]:
    report = f"import json, sys; print(json.dumps([n for n in {names} if n in sys.modules]))"
    loaded: list[str] = json.loads(_run("-c", f"{code}\n{report}"))
    return loaded


@pytest.mark.parametrize("module", ["serving.verify", "serving.smoke", "cli.main", "stages.run", "store"])
def test_serving_commands_import_neither_numpy_nor_torch(module: str) -> None:
    assert _loaded(f"import diffusion_builder.{module}", [*_HEAVY, "numpy", "pydantic", "rich", "jinja2"]) == []


@pytest.mark.parametrize(
    "module",
    [
        "repository.assemble",
        "arguments",
        "models.schedule",
        "sources.tokens",
        "sources",
        "stages.export",
        "engines.onnx_runtime",
    ],
)
def test_assembling_and_cache_hits_import_no_torch(module: str) -> None:
    assert _loaded(f"import diffusion_builder.{module}", _HEAVY) == []


def test_reading_a_tokenizer_imports_transformers_without_torch(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "files")
    code = (
        "from pathlib import Path; from diffusion_builder.sources import tokens; "
        f"tokens.load(Path({str(tmp_path)!r}, 'files'))"
    )
    assert _loaded(code, ["torch", "diffusers", "transformers"]) == ["transformers"]


@pytest.mark.parametrize(
    "module",
    [
        "enums",
        "reasons",
        "limits",
        "durations",
        "skus",
        "residuals",
        "results",
        "subfolders",
        "tensors",
        "python_models",
    ],
)
def test_words_and_numbers_of_the_contract_need_the_standard_library_alone(module: str) -> None:
    assert _loaded(f"import diffusion_contract.{module}", [*_HEAVY, "numpy", "pydantic"]) == []
