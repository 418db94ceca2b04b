"""TensorRT takes our graphs and our command line, proved without a GPU.

A trtexec for tests understands exactly our flags and really compiles, with TensorRT for RTX on the CPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import TensorProto, helper

from diffusion_builder.engines.tensorrt import run
from diffusion_builder.engines.tensorrt.command import Files, TensorRTOptions, arguments
from diffusion_builder.engines.tensorrt.profiles import optimization_profiles
from diffusion_builder.errors import BuilderError, Reason
from diffusion_builder.stages import run as stages
from diffusion_builder.store import Kind, Store
from diffusion_contract.enums import Component
from diffusion_contract.spec import Shapes
from diffusion_contract.tensors import ENGINE_INTERFACES
from tests.support.builder.repository import SHAPES, context
from tests.support.tensorrt import tensorrt_rtx
from tests.support.tensorrt.checkpoints import write_sd1_like, write_sd2_like
from tests.support.tensorrt.conformance import EVERYTHING, Workshop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_FACTS = {"channels": 4, "pixels_per_latent": 8, "text_length": 16, "text_width": 32}
_COMPONENTS = (Component.TEXT_ENCODER, Component.DENOISER, Component.SCHEDULER_STEP, Component.VAE_DECODER)
_WRITERS: dict[str, Callable[[Path], Path]] = {"sd1-like": write_sd1_like, "sd2-like": write_sd2_like}


@pytest.fixture(scope="module")
def workshop(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(store, tensorrt_rtx.write_programs(tmp_path_factory.mktemp("programs")))


@pytest.fixture(scope="module", params=["demo", *(_WRITERS if EVERYTHING else ())])
def source(
    request: pytest.FixtureRequest, workshop: Workshop, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Digest of a fetched checkpoint; those with the layers of SD only with `make test-conformance`."""
    writer = _WRITERS.get(request.param)
    folder = writer(tmp_path_factory.mktemp(request.param) / "checkpoint") if writer else checkpoint
    return str(stages.fetch(context(workshop.store), stages.FetchArguments(path=folder))["digest"])


@pytest.mark.parametrize("component", _COMPONENTS)
def test_every_component_of_every_checkpoint_compiles(workshop: Workshop, source: str, component: Component) -> None:
    exported = stages.export(context(workshop.store), source, component, "float32")
    result = workshop.compile_plan(str(exported["digest"]), SHAPES, "--layers")
    engine = workshop.engine(result)
    bindings = json.loads((engine / "layers.json").read_text())["Bindings"]
    interface = ENGINE_INTERFACES[component]
    assert sorted(bindings) == sorted(tensor.name for tensor in (*interface.inputs, *interface.outputs))
    assert (engine / "model.plan").stat().st_size > 0
    assert (result["runtime"], result["component"]) == ("tensorrt", component)


@pytest.fixture(scope="module")
def scheduler_step(workshop: Workshop, checkpoint: Path) -> Path:
    """The smallest graph with several dynamic inputs."""
    fetched = stages.fetch(context(workshop.store), stages.FetchArguments(path=checkpoint))
    exported = stages.export(context(workshop.store), str(fetched["digest"]), Component.SCHEDULER_STEP, "float32")
    return Store(workshop.store).folder(Kind.ONNX, str(exported["digest"])) / "model.onnx"


@pytest.fixture
def command(scheduler_step: Path, tmp_path: Path) -> list[str]:
    """The command line that compiles it."""
    files = Files(scheduler_step, tmp_path / "model.plan", tmp_path / "timing", tmp_path / "layers.json")
    profiles = optimization_profiles(Component.SCHEDULER_STEP, _FACTS, Shapes.model_validate_json(SHAPES))
    return list(arguments(files, profiles, TensorRTOptions(workspace_mib=512)))


def build(workshop: Workshop, command: list[str]) -> None:
    run.build(workshop.programs / "trtexec", command, "scheduler_step", lambda _step: None)


def refusal(workshop: Workshop, command: list[str]) -> BuilderError:
    with pytest.raises(BuilderError) as caught:
        build(workshop, command)
    return caught.value


def test_our_command_line_passes_with_every_flag(workshop: Workshop, command: list[str], tmp_path: Path) -> None:
    build(workshop, command)
    assert (tmp_path / "model.plan").stat().st_size > 0
    assert (tmp_path / "timing").exists()


@pytest.mark.parametrize("version", ["100600", "101303", "110100"])
def test_the_command_line_is_one_for_all_versions(
    workshop: Workshop, command: list[str], version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_TRTEXEC_VERSION", version)
    major, minor, patch = int(version[:2]), int(version[2:4]), int(version[4:])
    assert str(run.version(workshop.programs / "trtexec")) == f"{major}.{minor}.{patch}"
    build(workshop, command)


@pytest.mark.parametrize("flag", ["--fp16", "--workspace=4096", "--buildOnly"])
def test_an_unknown_flag_fails(workshop: Workshop, command: list[str], flag: str) -> None:
    error = refusal(workshop, [*command, flag])
    assert error.reason is Reason.VERSION_MISMATCH
    assert flag.partition("=")[0] in error.message


def test_a_missing_profile_fails(workshop: Workshop, command: list[str]) -> None:
    error = refusal(workshop, [*command, "--profile=2", "--minShapes=state:1x1x4x8x8"])
    assert "profile is missing" in error.message


@pytest.mark.parametrize("name", [tensor.name for tensor in ENGINE_INTERFACES[Component.SCHEDULER_STEP].inputs])
def test_a_dynamic_input_that_is_left_out_fails(workshop: Workshop, command: list[str], name: str) -> None:
    def without(argument: str) -> str:
        flag, _, value = argument.partition("=")
        if not flag.endswith("Shapes"):
            return argument
        return f"{flag}={','.join(item for item in value.split(',') if not item.startswith(f'{name}:'))}"

    # The real program warns and exits with 0.
    error = refusal(workshop, [without(argument) for argument in command])
    assert f"leaves out input {name} " in error.message


@pytest.mark.parametrize("bound", ["--minShapes", "--optShapes", "--maxShapes"])
def test_a_bound_that_is_left_out_fails(workshop: Workshop, command: list[str], bound: str) -> None:
    error = refusal(workshop, [argument for argument in command if not argument.startswith(bound)])
    assert f"has no {bound[2:]} for input" in error.message


def test_an_input_that_the_graph_has_not_fails(workshop: Workshop, command: list[str]) -> None:
    error = refusal(workshop, [argument.replace("table:", "tables:") for argument in command])
    assert "an input tables that the graph has not" in error.message


def test_a_shape_that_contradicts_the_graph_fails(workshop: Workshop, command: list[str]) -> None:
    wrong = [argument.replace("step_index:1x1", "step_index:1x2").replace("step_index:4x1", "step_index:4x2")
             .replace("step_index:8x1", "step_index:8x2") for argument in command]  # fmt: skip
    error = refusal(workshop, wrong)
    assert error.reason is Reason.COMPILE_FAILED


@pytest.mark.parametrize("operator", ["FancyThing", "Det"], ids=["invented", "of ONNX but not of TensorRT"])
def test_an_unsupported_operator_is_named_with_its_node(workshop: Workshop, tmp_path: Path, operator: str) -> None:
    node = helper.make_node(operator, ["x"], ["y"], name=f"/down/0/{operator}")
    graph = helper.make_graph(
        [node], "bad",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])],
    )  # fmt: skip
    path = tmp_path / "bad.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    error = refusal(workshop, [
        f"--onnx={path}", f"--saveEngine={tmp_path / 'plan'}", "--profile=0", "--minShapes=x:1x4x4",
        "--optShapes=x:1x4x4", "--maxShapes=x:1x4x4", "--skipInference",
    ])  # fmt: skip
    assert error.reason is Reason.UNSUPPORTED_OPERATOR
    assert f"operator {operator} at node /down/0/{operator} " in error.message


def test_a_damaged_graph_is_named_as_such(workshop: Workshop, command: list[str], tmp_path: Path) -> None:
    damaged = tmp_path / "model.onnx"
    damaged.write_bytes(b"no graph")
    error = refusal(workshop, [f"--onnx={damaged}", *command[1:]])
    assert error.reason is Reason.ARTIFACT_DAMAGED


def test_the_calls_that_read_a_plan_exist_in_tensorrt() -> None:
    # Loading a plan needs a GPU; that these names are right does not.
    script = (
        "import tensorrt_rtx_bindings as t;e=t.ICudaEngine;"
        "[e.num_io_tensors,e.get_tensor_name,e.get_tensor_mode,e.get_tensor_dtype,e.get_tensor_shape,"
        "e.num_optimization_profiles,e.get_tensor_profile_shape,t.TensorIOMode.INPUT,t.Logger.ERROR,t.__version__,"
        "t.Runtime.deserialize_cuda_engine];"
        "print(t.float32.name,t.int32.name,t.int64.name,t.uint8.name,t.float16.name,t.bfloat16.name)"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(tensorrt_rtx.install())}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert process.stdout.split() == ["FLOAT", "INT32", "INT64", "UINT8", "HALF", "BF16"]
