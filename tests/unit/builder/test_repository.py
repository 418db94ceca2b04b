"""A repository is complete, self-contained and the same for the same input."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from diffusion_builder.arguments import parse
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.repository.assemble import PACKAGE, assemble, code_files
from diffusion_builder.store import Artifact, Kind, Recipe, Store
from diffusion_contract.assembly import AssembleSpec
from diffusion_contract.enums import Component
from tests.support.builder.checkpoints import write_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping

_GOLDEN = Path(__file__).parent / "golden"
_FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}
_SIZES = {"channels": 4, "pixels_per_latent": 8}
_TEXT = {"text_length": 16, "text_width": 32}
# TensorRT's profiles need to know every size; each engine records what its own need.
_TENSORRT_FACTS: dict[Component, dict[str, int]] = {
    Component.TEXT_ENCODER: {**_TEXT, "vocabulary": 517},
    Component.DENOISER: {**_SIZES, **_TEXT},
    Component.SCHEDULER_STEP: _SIZES,
    Component.VAE_DECODER: _SIZES,
}
_FACTS: dict[Component, dict[str, int]] = {
    Component.TEXT_ENCODER: _TEXT,
    Component.DENOISER: {"channels": 4, "text_width": 32},
    Component.SCHEDULER_STEP: {},
    Component.VAE_DECODER: {"channels": 4, "pixels_per_latent": 8},
}

# How artifacts are read, written and named; values of the spec, and what engines are, count in the name themselves.
_DECIDES_NOTHING = {
    PACKAGE / name
    for name in (
        "digests.py", "errors.py", "sources/__init__.py", "store/__init__.py", "engines/__init__.py",
        "engines/tensorrt/__init__.py", "engines/tensorrt/build.py", "graphs/__init__.py", "graphs/onnx_files.py",
        "components/__init__.py", "components/options.py",
    )
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def _source(store: Store) -> str:
    def write(folder: Path) -> Mapping[str, Any]:
        write_tokenizer(folder / "tokenizer")
        (folder / "scheduler").mkdir()
        (folder / "scheduler" / "scheduler_config.json").write_text(
            '{"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear"}'
        )
        return {"subfolders": {"tokenizer": "t", "scheduler": "s"}}

    return store.publish(Recipe(Kind.SOURCE, {}), write)[0].manifest.digest


def _engine(store: Store, component: Component, facts: dict[str, int], runtime: str) -> str:
    def write(folder: Path) -> Mapping[str, Any]:
        (folder / _FILES[runtime]).write_bytes(component.encode())
        return {"component": str(component), "facts": facts, "runtime": runtime}

    recipe = Recipe(Kind.ENGINE, {"component": component, "facts": facts, "runtime": runtime})
    return store.publish(recipe, write)[0].manifest.digest


def _spec(
    store: Store, facts: dict[Component, dict[str, int]] = _FACTS, runtime: str = "onnxruntime", **changes: object
) -> AssembleSpec:
    side = {"min": 64, "opt": 64, "max": 128}
    body = {
        "source": _source(store),
        "engines": {component: _engine(store, component, dims, runtime) for component, dims in facts.items()},
        "runtime": runtime,
        "pipelines": [{"task": "generate", "steps": [2]}],
        "shapes": {"batch": {"min": 1, "opt": 4, "max": 8}, "height": side, "width": side},
        "batching": {"maxQueueDelayMicroseconds": 500, "preferredBatchSizes": [4, 8]},
    }
    return parse(AssembleSpec, json.dumps(body | changes), "--spec")


def _texts(artifact: Artifact) -> dict[str, str]:
    root = artifact.path / "models"
    return {path.parent.name: path.read_text() for path in sorted(root.glob("*/config.pbtxt"))}


def test_rendered_configurations_are_as_reviewed(store: Store) -> None:
    artifact, _ = assemble(store, _spec(store))
    rendered = _texts(artifact)
    reviewed = {path.name.removesuffix(".pbtxt"): path.read_text() for path in _GOLDEN.glob("*.pbtxt")}
    assert rendered == reviewed


def test_rendered_configurations_for_tensorrt_are_as_reviewed(store: Store) -> None:
    artifact, _ = assemble(store, _spec(store, _TENSORRT_FACTS, "tensorrt"))
    rendered = {name: text for name, text in _texts(artifact).items() if "tensorrt_plan" in text}
    reviewed = {path.name.removesuffix(".pbtxt"): path.read_text() for path in (_GOLDEN / "tensorrt").glob("*.pbtxt")}
    assert rendered == reviewed
    assert set(rendered) == {"2_text_encoder", "5_denoiser", "6_scheduler_step", "7_vae_decoder"}
    assert (artifact.path / "models" / "5_denoiser" / "1" / "model.plan").read_bytes() == b"denoiser"
    assert not list((artifact.path / "models" / "5_denoiser").rglob("*.py"))


def test_engines_of_the_loop_are_launched_as_cuda_graphs_of_every_batch(store: Store) -> None:
    cuda = {"graphs": True, "busyWaitEvents": False}
    artifact, _ = assemble(store, _spec(store, _TENSORRT_FACTS, "tensorrt", cuda=cuda))
    texts = _texts(artifact)
    assert {name for name, text in texts.items() if "graph_spec" in text} == {"5_denoiser", "6_scheduler_step"}
    assert re.findall(r"graph_spec \{\n +batch_size: (\d+)", texts["5_denoiser"]) == [str(n) for n in range(1, 9)]
    assert texts["5_denoiser"].count('input { key: "model_input" value { dim: [4, 8, 8] } }') == 8
    assert "busy_wait_events: false" in texts["5_denoiser"]
    # Models that are loaded at a time disturb each other's capture.
    assert "--model-load-thread-count=1" in artifact.manifest.extra["serverFlags"]


def test_graphs_cost_memory_and_can_be_switched_off(store: Store) -> None:
    with_graphs, without = (
        assemble(store, _spec(store, _TENSORRT_FACTS, "tensorrt", cuda={"graphs": graphs}))[0]
        for graphs in (True, False)
    )
    assert not [name for name, text in _texts(without).items() if "graph_spec" in text]
    assert "--model-load-thread-count=1" not in without.manifest.extra["serverFlags"]
    bytes_of = "estimatedGPUMemoryBytes"
    assert with_graphs.manifest.extra[bytes_of] > without.manifest.extra[bytes_of]


def test_rendered_configurations_of_an_accelerated_pipeline_are_as_reviewed(store: Store) -> None:
    deep = {"shallow_layers": 1, "deep_channels": 16, "shallow_text": 1}
    denoiser = {**_TENSORRT_FACTS[Component.DENOISER], **deep}
    facts = {**_TENSORRT_FACTS, Component.DENOISER: denoiser, Component.DENOISER_SHALLOW: denoiser}
    changes = {
        "acceleration": {"deepCache": {"interval": 3}}, "pipelines": [{"task": "generate", "steps": [4]}],
        "batching": {"priorities": True},
    }  # fmt: skip
    artifact, _ = assemble(store, _spec(store, facts, "tensorrt", **changes))
    names = ("5_denoiser", "5_denoiser_shallow", "6_scheduler_step", "generate_4_pipeline")
    for name in names:
        assert _texts(artifact)[name] == (_GOLDEN / "accelerated" / f"{name}.pbtxt").read_text(), name


def test_clients_read_the_buckets_from_the_conditioner(store: Store) -> None:
    buckets = [{"height": 128, "width": 64}, {"height": 64, "width": 128}]
    shapes = {"batch": {"min": 1, "opt": 4, "max": 8}, "buckets": buckets}
    texts = _texts(assemble(store, _spec(store, shapes=shapes))[0])
    parameter = 'parameters { key: "buckets" value: { string_value: "[[128, 64], [64, 128]]" } }'
    assert [name for name, text in texts.items() if parameter in text] == ["4_conditioner"]


def test_models_of_the_loop_take_turns_and_no_other_model_does(store: Store) -> None:
    artifact, _ = assemble(store, _spec(store))
    limited = {name for name, text in _texts(artifact).items() if "rate_limiter" in text}
    assert limited == {"5_denoiser", "6_scheduler_step"}


def test_no_model_takes_turns_where_that_is_not_wanted(store: Store) -> None:
    artifact, _ = assemble(store, _spec(store, batching={"takeTurns": False}))
    assert not [name for name, text in _texts(artifact).items() if "rate_limiter" in text]


def test_only_the_denoiser_has_priorities_and_only_where_they_are_wanted(store: Store) -> None:
    artifact, _ = assemble(store, _spec(store, batching={"priorities": True}))
    levels = "  priority_levels: 2\n  default_priority_level: 1\n"
    assert [name for name, text in _texts(artifact).items() if levels in text] == ["5_denoiser"]
    plain, _ = assemble(store, _spec(store))
    assert not [name for name, text in _texts(plain).items() if "priority_level" in text]


def test_repository_says_what_it_asks_of_the_server(store: Store) -> None:
    cpu, _ = assemble(store, _spec(store))
    assert (cpu.manifest.extra["serverFlags"], cpu.manifest.extra["estimatedGPUMemoryBytes"]) == (
        ["--rate-limit=execution_count"],
        0,
    )
    gpu, _ = assemble(store, _spec(store, _TENSORRT_FACTS, "tensorrt"))
    pool = 64 << 20
    assert gpu.manifest.extra["serverFlags"] == [
        "--rate-limit=execution_count", f"--cuda-memory-pool-byte-size=0:{pool}",
    ]  # fmt: skip
    assert gpu.manifest.extra["estimatedGPUMemoryBytes"] > pool


def test_engine_of_another_runtime_is_rejected(store: Store) -> None:
    engines = _spec(store, _TENSORRT_FACTS, "tensorrt").engines
    with pytest.raises(BadInputError, match="is for tensorrt, the repository for onnxruntime"):
        assemble(store, _spec(store, engines=engines))


def test_links_are_relative_and_reach_the_engines(store: Store) -> None:
    artifact, _ = assemble(store, _spec(store))
    link = artifact.path / "models" / "5_denoiser" / "1" / "model.onnx"
    assert not link.readlink().is_absolute()
    assert link.read_bytes() == b"denoiser"
    moved = store.root.rename(store.root.with_name("elsewhere"))
    assert (moved / link.relative_to(store.root)).read_bytes() == b"denoiser"


def test_everything_a_model_imports_is_in_its_folder(store: Store) -> None:
    artifact, _ = assemble(store, _spec(store))
    for model in (artifact.path / "models").glob("*/1/model.py"):
        siblings = {path.stem for path in model.parent.glob("*.py")}
        for path in model.parent.glob("*.py"):
            imported = {
                line.split()[1].lstrip(".") for line in path.read_text().splitlines() if line.startswith("from .")
            } - {""}
            assert imported <= siblings | {folder.name for folder in model.parent.iterdir() if folder.is_dir()}


def test_code_that_decides_what_is_in_a_repository_counts_in_its_name() -> None:
    counted = set(code_files().values())
    assert len(counted) == len(code_files())
    assert PACKAGE / "repository/assemble.py" in counted
    for file in (item for item in counted if item.suffix == ".py"):
        missing = _imports(file) - counted - _DECIDES_NOTHING
        assert not missing, f"{file.name} uses {missing}: add it to code_files"


def _imports(file: Path) -> set[Path]:
    """Modules of the builder that a file loads when it runs, as files; those for its types alone are left out."""
    top = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ImportFrom)]
    names = [
        name
        for node in top
        if node.module and node.module.split(".")[0] == PACKAGE.name
        for name in (node.module, *(f"{node.module}.{item.name}" for item in node.names))
    ]
    places = [PACKAGE.joinpath(*name.split(".")[1:]) for name in names]
    folders = {place / "__init__.py" for place in places if place != PACKAGE}
    return {file for file in folders | {place.with_suffix(".py") for place in places} if file.exists()}


def test_same_spec_is_cached_and_other_tiers_are_another_repository(store: Store) -> None:
    first, _ = assemble(store, _spec(store))
    assert assemble(store, _spec(store)) == (first, True)
    other, cached = assemble(store, _spec(store, pipelines=[{"task": "generate", "steps": [2, 3]}]))
    assert (cached, other.manifest.extra["ensembles"]) == (False, ["generate_2_pipeline", "generate_3_pipeline"])


def test_engines_in_the_wrong_place_are_named(store: Store) -> None:
    engines = dict(_spec(store).engines)
    engines[Component.DENOISER] = engines[Component.VAE_DECODER]
    with pytest.raises(BadInputError, match="is not a denoiser, but a vae_decoder") as caught:
        assemble(store, _spec(store, engines=engines))
    assert caught.value.reason is Reason.COMPONENT_MISMATCH


@pytest.mark.parametrize(
    ("component", "facts", "says"),
    [
        (Component.DENOISER, {"channels": 4, "text_width": 64}, "text_width"),
        (Component.VAE_DECODER, {"channels": 8, "pixels_per_latent": 8}, "channels"),
        (Component.TEXT_ENCODER, {"text_length": 77, "text_width": 32}, "makes 16 tokens, the text encoder reads 77"),
        (
            Component.TEXT_ENCODER,
            {**_TEXT, "vocabulary": 516},
            r"\(516\), the text encoder has embeddings for 516",
        ),
    ],
)
def test_components_that_do_not_fit_are_named(
    store: Store, component: Component, facts: dict[str, int], says: str
) -> None:
    with pytest.raises(BadInputError, match=says) as caught:
        assemble(store, _spec(store, {**_FACTS, component: facts}))
    assert caught.value.reason is Reason.COMPONENT_MISMATCH
    assert not (store.root / "repositories").exists() or not list((store.root / "repositories").iterdir())
