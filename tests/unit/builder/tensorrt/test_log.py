"""Every known bad sign in trtexec's log becomes an error in our own words, and nothing else does."""

from dataclasses import dataclass

import pytest

from diffusion_builder.engines.tensorrt.log import LogReader
from diffusion_builder.errors import BadInputError, BuilderError, ExitCode, Reason

STAMP = "[11/23/2026-16:42:43] "


def read(*lines: str) -> LogReader:
    reader = LogReader("denoiser")
    for line in lines:
        reader.feed(line + "\n")
    return reader


def failure(*lines: str, exit_code: int = 1) -> BuilderError:
    error = read(*lines).error(exit_code)
    assert error is not None
    return error


@dataclass(frozen=True)
class Case:
    line: str
    reason: Reason
    code: ExitCode
    says: str


CASES = {
    "overridden shape": Case(
        "[W] Dynamic dimensions required for input: text_embeddings, but no shapes were provided. "
        "Automatically overriding shape to: 1x2x1x768",
        Reason.COMPILE_FAILED, ExitCode.BAD_INPUT, "leaves out input text_embeddings",
    ),
    "broadcast bound": Case(
        "[W] optShapes is being broadcasted to maxShapes for tensor latent",
        Reason.COMPILE_FAILED, ExitCode.BAD_INPUT, "no maxShapes for input latent",
    ),
    "unknown input": Case(
        '[E] Cannot find input tensor with name "latents" in the network inputs! Please make sure the input tensor '
        "names are correct.",
        Reason.COMPILE_FAILED, ExitCode.BAD_INPUT, "an input latents that the graph has not",
    ),
    "no profile": Case(
        "[E] [TRT] IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (Network has dynamic "
        "or shape inputs, "
        "but no optimization profile has been defined. In validate at /_src/optimizer/api/network.cpp:4023)",
        Reason.COMPILE_FAILED, ExitCode.BAD_INPUT, "profile is missing",
    ),
    "other checkpoint": Case(
        "[E] [TRT] IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (Dimension mismatch "
        "for tensor latent "
        "and profile 0. At dimension axis 1, profile has min=3, opt=3, max=3 but tensor has 4. In validate at x:4054)",
        Reason.COMPILE_FAILED, ExitCode.BAD_INPUT, "profile 0 gives input latent a size",
    ),
    "unknown flag": Case(
        "[E] Unknown option: --fp16 ", Reason.VERSION_MISMATCH, ExitCode.BAD_INPUT, "does not know --fp16",
    ),
    "unsupported operator": Case(
        "[E] [TRT] In node 12 with name: /mid/Det and operator: Det (checkDet): UNSUPPORTED_NODE: false",
        Reason.UNSUPPORTED_OPERATOR, ExitCode.BAD_INPUT, "operator Det at node /mid/Det",
    ),
    "unreadable graph": Case(
        "[E] [TRT] (deserializeOnnxModel): MODEL_DESERIALIZE_FAILED: Assertion failed: Failed to parse the ONNX model.",
        Reason.ARTIFACT_DAMAGED, ExitCode.BAD_INPUT, "cannot be read",
    ),
    "GPU memory": Case(
        "[E] [TRT] [virtualMemoryBuffer.cpp::nvinfer1::StdVirtualMemoryBufferImpl::resizePhysical::154] "
        "Error Code 2: OutOfMemory (Requested size was 3356491776 bytes.)",
        Reason.OUT_OF_GPU_MEMORY, ExitCode.BAD_INPUT, "(3356491776 bytes were requested)",
    ),
    "GPU memory, allocation": Case(
        "[W] [TRT] Requested amount of GPU memory (4294967296 bytes) could not be allocated. There may not be enough "
        "free memory for allocation to succeed.",
        Reason.OUT_OF_GPU_MEMORY, ExitCode.BAD_INPUT, "(4294967296 bytes were requested)",
    ),
    "GPU memory, CUDA": Case(
        "[E] [TRT] [defaultAllocator.cpp::allocate::19] Error Code 1: Cuda Runtime (out of memory)",
        Reason.OUT_OF_GPU_MEMORY, ExitCode.BAD_INPUT, "too little memory",
    ),
    "workspace limit": Case(
        "[E] [TRT] Error Code 10: Internal Error (Could not find any implementation for node conv due to insufficient "
        "workspace. See verbose log for requested sizes.)",
        Reason.OUT_OF_GPU_MEMORY, ExitCode.BAD_INPUT, "Raise or remove the limit on the workspace",
    ),
    "no kernel": Case(
        "[E] [TRT] IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any "
        "implementation for "
        "node {ForeignNode[/a/Unsqueeze + /b/Cast.../c/Cast]}.)",
        Reason.COMPILE_FAILED, ExitCode.BAD_INPUT, "no kernel for node {ForeignNode[/a/Unsqueeze + /b/Cast.../c/Cast]}",
    ),
    "no GPU": Case(
        "[E] Cannot find any available devices (GPUs)!", Reason.NO_GPU, ExitCode.UNAVAILABLE, "finds no GPU",
    ),
    "no GPU, CUDA": Case(
        "Cuda failure: no CUDA-capable device is detected", Reason.NO_GPU, ExitCode.UNAVAILABLE, "finds no GPU",
    ),
    "old driver": Case(
        "Cuda failure: CUDA driver version is insufficient for CUDA runtime version",
        Reason.NO_GPU, ExitCode.UNAVAILABLE, "driver of this node is too old",
    ),
    "old driver, by number": Case(
        "[W] [TRT] CUDA initialization failure with error: 35. Please check your CUDA installation",
        Reason.NO_GPU, ExitCode.UNAVAILABLE, "driver of this node is too old",
    ),
    "CUDA does not start": Case(
        "[W] [TRT] CUDA initialization failure with error: 802. Please check your CUDA installation",
        Reason.NO_GPU, ExitCode.UNAVAILABLE, "error 802",
    ),
    "other version": Case(
        "[E] [TRT] IRuntime::deserializeCudaEngine: Error Code 6: API Usage Error (The engine plan file "
        "is not compatible "
        "with this version of TensorRT, expecting library version 10.13.3.9 got 10.6.0.26, please rebuild.)",
        Reason.VERSION_MISMATCH, ExitCode.BAD_INPUT, "one TensorRT version",
    ),
    "GPU too old": Case(
        "[E] [TRT] IBuilder::buildSerializedNetwork: Error Code 9: API Usage Error (Target GPU SM 61 is "
        "not supported by "
        "this TensorRT release.)",
        Reason.WRONG_GPU, ExitCode.BAD_INPUT, "compute capability 61",
    ),
    "other GPU": Case(
        "[E] [TRT] Error Code 6: The engine plan file is generated on an incompatible device, expecting "
        "compute 9.0 got "
        "compute 8.9, please rebuild.",
        Reason.WRONG_GPU, ExitCode.BAD_INPUT, "is for compute capability 9.0, this GPU has 8.9",
    ),
    "full disk": Case("[E] Saving engine to file failed.", Reason.STORE_FULL, ExitCode.STORE, "store full"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_known_sign_becomes_an_error_in_our_words(case: Case) -> None:
    error = failure(STAMP + case.line)
    assert (error.reason, error.exit_code) == (case.reason, case.code)
    assert case.says in error.message


@pytest.mark.parametrize("name", ["overridden shape", "broadcast bound"])
def test_a_fixed_shape_fails_a_build_that_ends_well(name: str) -> None:
    reader = read(STAMP + CASES[name].line, STAMP + "[I] Engine built in 9 sec.")
    assert reader.is_fatal
    assert isinstance(reader.error(0), BadInputError)


@pytest.mark.parametrize("name", [name for name in CASES if name not in {"overridden shape", "broadcast bound"}])
def test_other_signs_do_not_fail_a_build_that_ends_well(name: str) -> None:
    # Kernels that need too much memory are skipped, and the build goes on.
    reader = read(STAMP + CASES[name].line)
    assert not reader.is_fatal
    assert reader.error(0) is None


@pytest.mark.parametrize("name_line", ["Node name: /down/0/FancyThing", 'name: "/down/0/FancyThing"'], ids=["11", "10"])
def test_an_unsupported_operator_is_named_with_its_node(name_line: str) -> None:
    error = failure(
        STAMP + '[E] [TRT] ModelImporter.cpp:140: While parsing node number 0 [FancyThing -> "y"]:',
        STAMP + "[E] [TRT] ModelImporter.cpp:142: --- Begin node ---",
        name_line,
        STAMP + "[E] [TRT] ModelImporter.cpp:143: --- End node ---",
        STAMP
        + "[E] [TRT] ModelImporter.cpp:151: ERROR: onnxOpCheckers.cpp:998 In function checkFallbackPluginImporter:",
        '[6] creator && "Plugin not found, are the plugin name, version, and namespace correct?"',
        STAMP + "[E] Failed to parse onnx file",
    )
    assert error.reason is Reason.UNSUPPORTED_OPERATOR
    assert "operator FancyThing at node /down/0/FancyThing " in error.message


def test_a_cause_outweighs_a_hint_that_came_before() -> None:
    error = failure(STAMP + CASES["GPU memory"].line, STAMP + CASES["full disk"].line)
    assert error.reason is Reason.STORE_FULL


def test_an_unknown_failure_quotes_the_last_error() -> None:
    error = failure(
        STAMP + "[E] [TRT] Something nobody has seen",
        STAMP + "[I] and goes on",
        "&&&& FAILED TensorRT.trtexec [TensorRT v110100] [b0] # trtexec",
    )
    assert error.reason is Reason.COMPILE_FAILED
    assert error.message == "denoiser: trtexec failed with exit code 1: Something nobody has seen"


def test_a_killed_build_names_the_memory_limit() -> None:
    error = failure(STAMP + "[I] working", exit_code=-9)
    assert error.reason is Reason.OUT_OF_MEMORY


def test_the_end_of_the_log_is_kept() -> None:
    reader = read(*(f"line {number}" for number in range(100)))
    assert list(reader.tail)[-1] == "line 99"
    assert len(reader.tail) < 100


def test_progress_only_grows_and_ends_with_the_build() -> None:
    lines = [
        "Start parsing network model.", "Finished parsing network model. Parse time: 0.5",
        "[TRT] Detected 4 inputs and 1 output network tensors.", "[TRT] Total Activation Memory: 73373696 bytes",
        "[TRT] Detected 4 inputs and 1 output network tensors.", "[TRT] Total Activation Memory: 73373696 bytes",
        "[TRT] Engine generation completed in 29.7 seconds.", "Created engine with size: 37 MiB",
        "Skipped inference phase since --skipInference is added.",
    ]  # fmt: skip
    reader = LogReader("denoiser")
    fractions = [reader.step.fraction for line in lines if reader.feed(f"{STAMP}[I] {line}\n")]
    assert fractions == sorted(set(fractions))
    assert len(fractions) == len(lines) - 2
    assert fractions[-1] == 1.0
