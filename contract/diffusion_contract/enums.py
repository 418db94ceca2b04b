"""Words that the operator and the builder exchange, each once; standard library only."""

from enum import IntEnum, StrEnum


class Stage(StrEnum):
    """Kinds of build Jobs, and the builder's commands of the same names."""

    FETCH = "fetch"
    EXPORT = "export"
    COMPILE = "compile"
    ASSEMBLE = "assemble"
    PARITY = "parity"
    COMPARE = "compare"
    GC = "gc"


class Component(StrEnum):
    """Sub-models that have an engine of their own."""

    TEXT_ENCODER = "text_encoder"
    TEXT_ENCODER_2 = "text_encoder_2"
    IMAGE_ENCODER = "image_encoder"
    VAE_ENCODER = "vae_encoder"
    CONTROLNET = "controlnet"
    ZERO_RESIDUALS = "zero_residuals"
    DENOISER = "denoiser"
    DENOISER_SHALLOW = "denoiser_shallow"
    DENOISER_UNGUIDED = "denoiser_unguided"
    DENOISER_SHALLOW_UNGUIDED = "denoiser_shallow_unguided"
    REFINER = "refiner"
    SCHEDULER_STEP = "scheduler_step"
    VAE_DECODER = "vae_decoder"
    PREVIEW_DECODER = "preview_decoder"
    SAFETY_CHECKER = "safety_checker"


SHALLOW_DENOISERS = frozenset({Component.DENOISER_SHALLOW, Component.DENOISER_SHALLOW_UNGUIDED})
"""Denoisers that compute only the last layers, on features that an earlier call of a full one has left."""
UNGUIDED_DENOISERS = frozenset({Component.DENOISER_UNGUIDED, Component.DENOISER_SHALLOW_UNGUIDED})
"""Denoisers that are called with the positive prompts alone."""
DENOISERS = (
    Component.DENOISER,
    Component.DENOISER_SHALLOW,
    Component.DENOISER_UNGUIDED,
    Component.DENOISER_SHALLOW_UNGUIDED,
)
"""Variants of the denoiser, of the same weights."""
LOOP_DENOISERS = (*DENOISERS, Component.REFINER)
"""What a call of the denoising loop may be: a variant of the denoiser, or the refiner's UNet, which has its own."""


class ModelFamily(StrEnum):
    """Architectures of checkpoints."""

    STABLE_DIFFUSION = "StableDiffusion"
    STABLE_DIFFUSION_XL = "StableDiffusionXL"


class PromptWeighting(StrEnum):
    """Syntaxes of weights in prompts."""

    NONE = "None"
    A1111 = "A1111"
    COMPEL = "Compel"


class Precision(StrEnum):
    """Element type of weights and arithmetic inside a graph; its inputs and outputs stay as `tensors` says."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


class Runtime(StrEnum):
    """What executes engines: TensorRT on GPUs, ONNX Runtime on CPUs."""

    TENSORRT = "tensorrt"
    ONNXRUNTIME = "onnxruntime"


class ExitCode(IntEnum):
    """Exit codes of every stage; the operator's Jobs decide by them whether a retry makes sense."""

    OK = 0
    NOT_READY = 1
    BAD_INPUT = 64
    UNAVAILABLE = 69
    INTERNAL = 70
    STORE = 74
