"""What admission could not know: whether this operator, as it is set up, can serve the spec."""

from collections import Counter

from diffusion_contract.spec import DiffusionPipelineSpec
from diffusion_operator.conditions import Finding, Reason, Type
from diffusion_operator.settings import Settings


def check(spec: DiffusionPipelineSpec, settings: Settings) -> Finding:
    """Whether the spec can be served; the message names the field or the setting that is in the way."""
    problem = _images(spec, settings) or _precision(spec) or _schedulers(spec)
    if problem is not None:
        return Finding(Type.ACCEPTED, ok=False, reason=Reason.INVALID_SPEC, message=problem)
    return Finding(Type.ACCEPTED, ok=True, reason=Reason.VALID, message="The spec can be served.")


def _images(spec: DiffusionPipelineSpec, settings: Settings) -> str | None:
    with_gpu = [target.name for target in spec.targets if target.gpu is not None]
    if not with_gpu:
        return None
    missing = [] if settings.tensorrt_builder_image else ["images.tensorrt.builder"]
    if not (settings.tensorrt_serving_image or spec.serving.image):
        missing.append("images.tensorrt.serving")
    if not missing:
        return None
    return (
        f"Target {', '.join(with_gpu)} needs images with TensorRT, and this operator has none: set "
        f"{' and '.join(missing)} of its chart."
    )


def _schedulers(spec: DiffusionPipelineSpec) -> str | None:
    counted = Counter(item.called for item in spec.samplers)
    twice = [name for name, count in counted.items() if count > 1]
    if not twice:
        return None
    return f"spec.schedulers: two samplers are called {twice[0]}: give one of them another name."


def _precision(spec: DiffusionPipelineSpec) -> str | None:
    on_cpu = [target.name for target in spec.targets if target.gpu is None]
    chosen = spec.component_precision.model_dump().items() if spec.component_precision is not None else ()
    broad = [name for name, value in chosen if value == "bfloat16"]
    if not (on_cpu and broad):
        return None
    return (
        f"spec.componentPrecision.{broad[0]}: ONNX Runtime has no bfloat16 on a CPU, and target {on_cpu[0]} is one: "
        "use float32 or float16."
    )
