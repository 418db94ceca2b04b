"""Nothing is made twice, and the same input gives the same bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.stages.run import FetchArguments, Result, export, fetch, parity
from diffusion_builder.store import Kind, Store
from diffusion_contract.enums import Component
from diffusion_contract.tensors import TEXT_TO_IMAGE
from tests.support.builder.checkpoints import write_unet
from tests.support.builder.repository import build_repository, context
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_ALL = {
    "fetch", "assemble",
    *(f"{stage} {component}" for stage in ("export", "compile") for component in TEXT_TO_IMAGE),
}  # fmt: skip


def _uncached_steps(results: Sequence[Result]) -> set[str]:
    return {f"{item['stage']} {item.get('component', '')}".strip() for item in results if not item["cached"]}


def test_second_build_makes_nothing_and_a_new_unet_only_what_depends_on_it(
    tmp_path: Path, random_checkpoint: Path
) -> None:
    store = tmp_path / "store"
    assert _uncached_steps(build_repository(store, random_checkpoint)) == _ALL
    assert _uncached_steps(build_repository(store, random_checkpoint)) == set()
    assert _uncached_steps(build_repository(store, random_checkpoint, "Euler")) == {"assemble"}
    changed = tmp_path / "changed"
    shutil.copytree(random_checkpoint, changed)
    shutil.rmtree(changed / "unet")
    write_unet(changed / "unet", seed=1)
    assert _uncached_steps(build_repository(store, changed)) == {
        "fetch",
        "export denoiser",
        "compile denoiser",
        "assemble",
    }


def test_exporting_twice_gives_the_same_bytes_and_verification_stays_small(
    tmp_path: Path, random_checkpoint: Path
) -> None:
    first: dict[tuple[str, str], object] = {}
    second: dict[tuple[str, str], object] = {}
    for name, artifacts in (("a", first), ("b", second)):
        for result in build_repository(tmp_path / name, random_checkpoint):
            if result["stage"] in ("export", "compile"):
                kind = Kind.ONNX if result["stage"] == "export" else Kind.ENGINE
                artifacts[result["stage"], result["component"]] = (
                    Store(tmp_path / name).get(kind, result["digest"]).manifest.files
                )
                assert result.get("maxAbsError", 0.0) < 1e-4
    assert first == second


def test_command_line_writes_a_small_result_and_json_progress(tmp_path: Path, random_checkpoint: Path) -> None:
    result = tmp_path / "result.json"
    command = [
        sys.executable, "-m", "diffusion_builder", "--progress", "json", "build", "--path", str(random_checkpoint),
        "--store", str(tmp_path / "store"), "--steps", "2", "--result", str(result),
    ]  # fmt: skip
    process = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT / "builder")
    assert result.stat().st_size <= 4096
    body = json.loads(result.read_text())
    assert body["ensembles"] == ["generate_2_pipeline"]
    assert body["parity"]["worstPSNR"] >= body["parity"]["minPSNR"] == 35.0
    events = [json.loads(line) for line in process.stderr.splitlines() if line.startswith("{")]
    assert {"stage", "component", "phase", "fraction", "message"} == set(events[0])
    assert str(tmp_path / "store" / "repositories" / body["digest"] / "models") in process.stderr


def test_weights_that_do_not_fit_their_config_are_named(tmp_path: Path, random_checkpoint: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(random_checkpoint, broken)
    config = broken / "vae" / "config.json"
    config.write_text(config.read_text().replace('"latent_channels": 4', '"latent_channels": 5'))
    here = context(tmp_path / "store")
    source = str(fetch(here, FetchArguments(path=broken))["digest"])
    with pytest.raises(BadInputError, match="vae: size mismatch") as caught:
        export(here, source, Component.VAE_DECODER, "float32")
    assert caught.value.reason is Reason.INVALID_WEIGHTS
    assert not list((tmp_path / "store" / "onnx").iterdir())


def test_a_repository_that_draws_something_else_fails_its_check_with_the_numbers(
    tmp_path: Path, random_checkpoint: Path
) -> None:
    store = tmp_path / "store"
    repository = str(build_repository(store, random_checkpoint)[-1]["digest"])
    report = parity(context(store), repository)
    assert report["worstPSNR"] >= 35.0
    assert report["worstLatentError"] < 1e-3
    assert report["ensembles"].keys() == {"generate_4_pipeline"}
    assert parity(context(store), repository)["cached"]
    shutil.rmtree(store / "parity")
    model = store / "repositories" / repository / "models" / "8_postprocessor" / "1" / "postprocess.py"
    code = model.read_text()
    assert "decoded * np.float32(0.5)" in code
    model.write_text(code.replace("decoded * np.float32(0.5)", "decoded * np.float32(0.3)"))
    with pytest.raises(BadInputError, match=r"generate_4_pipeline: [\d.]+ dB, latents differ by up to \d") as caught:
        parity(context(store), repository)
    assert caught.value.reason is Reason.PARITY_FAILED
    assert list((store / "parity").iterdir()) == []
