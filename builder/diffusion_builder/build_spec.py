"""What `build` makes, as a file: the fields of a DiffusionPipeline's spec that concern building.

A file may also be a whole DiffusionPipeline; what only the operator reads in it (storage, resources, replicas, rollout)
is left out, and any other unknown field is an error.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path  # noqa: TC003 - pydantic reads it when it runs
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from diffusion_builder.components.options import Digest, Precision
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.repository.spec import PipelineSpec, Range, SchedulerSpec, Shapes, check_control_name, validate
from diffusion_contract.tensors import MAX_CONTROLNETS, Component

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KIND = "DiffusionPipeline"
CPU = "cpu"
_DURATION = re.compile(r"(\d+)(us|ms|s)")
_MICROSECONDS = {"us": 1, "ms": 1000, "s": 1_000_000}


class _Part(BaseModel):
    """Immutable, camelCase outside; `others` are fields that the operator alone reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)
    others: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, value: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        return {name: item for name, item in value.items() if name not in cls.others} if _is_map(value) else value


def _is_map(value: object) -> bool:
    return isinstance(value, dict)


class HubSource(_Part):
    """A repository on a hub, pinned to a commit."""

    others = frozenset({"tokenSecretRef"})
    repo: str
    revision: str


class ArchiveSource(_Part):
    """A tar, tar.gz or zip file on a web server."""

    url: str
    sha256: str


class Source(_Part):
    """Where weights come from: exactly one of a hub, an archive, a folder, or an artifact of the store.

    `subfolder` is taken as its root; `variant` says which weights are taken where there are several.
    """

    hugging_face: HubSource | None = None
    archive: ArchiveSource | None = None
    path: Path | None = None
    digest: Digest | None = None
    subfolder: str | None = None
    variant: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _outside(cls, value: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        if _is_map(value) and "persistentVolumeClaim" in value:
            raise ValueError("a claim exists only inside of Kubernetes: give path, the folder that it is mounted at")
        return value

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [self.hugging_face, self.archive, self.path, self.digest]
        if sum(item is not None for item in given) != 1:
            raise ValueError("give exactly one of huggingFace, archive, path and digest")
        if self.digest is not None and (self.subfolder is not None or self.variant is not None):
            raise ValueError(
                "an artifact of the store was fetched already: subfolder and variant are for other sources"
            )
        return self


class Override(_Part):
    """Another source for one component."""

    source: Source


class Lora(_Part):
    """A LoRA, and how much of it is merged; `file` chooses among several safetensors files of its source."""

    source: Source
    file: str | None = None
    weight: float = Field(default=1.0, allow_inf_nan=False)


class ControlNet(_Part):
    """A ControlNet under the name that requests use."""

    name: str = Field(pattern=r"^[a-z]([a-z0-9_]*[a-z0-9])?$", max_length=24)
    source: Source

    @model_validator(mode="after")
    def _unambiguous(self) -> Self:
        check_control_name(self.name)
        return self


class IPAdapter(_Part):
    """An IP-Adapter; its image encoder is named, lies beside it or in the checkpoint."""

    source: Source
    file: str | None = None
    image_encoder: Override | None = None


class SafetyChecker(_Part):
    """What makes withheld pictures black."""

    source: Source


class Model(_Part):
    """The checkpoint, and what is put into it."""

    source: Source
    components: dict[Literal["text_encoder", "denoiser", "vae"], Override] = {}
    loras: tuple[Lora, ...] = ()
    control_nets: tuple[ControlNet, ...] = Field(default=(), max_length=MAX_CONTROLNETS)
    ip_adapter: IPAdapter | None = None
    safety_checker: SafetyChecker | None = None
    clip_skip: int = Field(default=0, ge=0)
    long_prompts: bool = False
    guidance_rescale: bool = False

    @model_validator(mode="after")
    def _unique(self) -> Self:
        _unique("controlNets", (item.name for item in self.control_nets))
        return self


class Engines(_Part):
    """How graphs become engines; level and workspace (MiB) are for TensorRT, which is what GPUs get by default."""

    others = frozenset({"resources", "timeout", "priorityClassName", "labels"})
    runtime: Literal["tensorrt", "onnxruntime"] | None = None
    optimization_level: int = Field(default=3, ge=0, le=5)
    workspace: int | None = Field(default=None, ge=1)


class Gpu(_Part):
    """A GPU product, as the node label nvidia.com/gpu.product says it."""

    others = frozenset({"count", "resourceName", "resourceClaimTemplateName", "runtimeClassName"})
    product: str


class Target(_Part):
    """What is compiled for: a GPU product, or the CPU."""

    others = frozenset(
        {"replicas", "resources", "nodeSelector", "tolerations", "autoscaling", "priorityClassName", "labels"}
    )
    name: str = CPU
    gpu: Gpu | None = None

    @property
    def sku(self) -> str:
        """The GPU product, or `cpu`."""
        return self.gpu.product if self.gpu else CPU


class Batching(_Part):
    """How the engines' queues join requests."""

    max_delay: Annotated[str, Field(pattern=r"^\d+(us|ms|s)$")] = "0us"
    preferred: tuple[Annotated[int, Field(ge=1)], ...] = ()
    take_turns: bool = True
    priorities: bool = False

    @property
    def microseconds(self) -> int:
        """The delay."""
        found = _DURATION.fullmatch(self.max_delay)
        return int(found[1]) * _MICROSECONDS[found[2]] if found else 0


class Serving(_Part):
    """What of serving is written into a repository."""

    others = frozenset({"image", "env", "podTemplate"})
    batching: Batching = Batching()


_SIDE = Range(min=256, opt=512, max=768)
_SHAPES = Shapes(batch=Range(min=1, opt=4, max=8), height=_SIDE, width=_SIDE)


class BuildSpec(_Part):
    """Everything that `build` makes; of several schedulers a request may choose one, the first is the default."""

    others = frozenset({"storage", "suspend", "rollout"})
    model: Model
    scheduler: SchedulerSpec | None = None
    schedulers: tuple[SchedulerSpec, ...] = ()
    precision: Precision = Precision.FLOAT32
    component_precision: dict[Component, Precision] = {}
    shapes: Shapes = _SHAPES
    pipelines: tuple[PipelineSpec, ...] = Field(min_length=1)
    engines: Engines = Engines()
    targets: tuple[Target, ...] = Field(default=(Target(),), min_length=1)
    serving: Serving = Serving()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _unique("pipelines", (" ".join((item.task, *sorted(item.features))) for item in self.pipelines))
        if self.scheduler and self.schedulers:
            raise ValueError("give either scheduler or schedulers")
        _unique("schedulers", (item.label for item in self.schedulers))
        self._features()
        _unique("targets", (item.name for item in self.targets))
        too_large = [size for size in self.serving.batching.preferred if size > self.shapes.batch.max]
        if too_large:
            raise ValueError(f"serving.batching.preferred: {too_large} exceed shapes.batch.max {self.shapes.batch.max}")
        for target in self.targets:
            if (self.runtime(target) == "tensorrt") == (target.sku == CPU):
                raise ValueError(_misfit(self.runtime(target), target))
        on_cpu = any(self.runtime(target) == "onnxruntime" for target in self.targets)
        if on_cpu and Precision.BFLOAT16 in self.precisions().values():
            raise ValueError("precision bfloat16: ONNX Runtime's CPU kernels do not know it; use float32 or float16")
        return self

    def _features(self) -> None:
        """Refuse features that nothing is there for."""
        have = {"controlnet": self.model.control_nets, "ip_adapter": self.model.ip_adapter, "embeddings": True}
        for item in self.pipelines:
            for feature in item.features:
                if not have[feature]:
                    name = {"controlnet": "controlNets", "ip_adapter": "ipAdapter"}[feature]
                    raise ValueError(f"pipelines: {item.task} with {feature} needs model.{name}")

    def listed(self) -> tuple[SchedulerSpec, ...]:
        """All schedulers, the default one first."""
        return self.schedulers or (self.scheduler or SchedulerSpec(),)

    def runtime(self, target: Target) -> str:
        """What executes the engines of a target."""
        return self.engines.runtime or ("onnxruntime" if target.sku == CPU else "tensorrt")

    def precisions(self) -> Mapping[Component, Precision]:
        """The precision of every component."""
        return {component: self.component_precision.get(component, self.precision) for component in Component}

    def only(self, name: str | None) -> Target:
        """The target that is built for.

        Args:
            name: its name, or None where there is only one.

        Raises:
            BadInputError: there is none of that name, or several to choose from.
        """
        found = [target for target in self.targets if name in (None, target.name)]
        if len(found) != 1:
            names = ", ".join(target.name for target in self.targets)
            raise BadInputError(Reason.INVALID_SPEC, f"choose one target with --target; the spec has: {names}")
        return found[0]


def _misfit(runtime: str, target: Target) -> str:
    need = "a GPU product (targets[].gpu.product)" if runtime == "tensorrt" else "no GPU"
    return f"runtime {runtime} for target {target.name!r} ({target.sku}): {runtime} engines need {need}"


def _unique(what: str, names: Iterable[str]) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValueError(f"{what}: {', '.join(twice)} more than once")


def read(path: Path) -> BuildSpec:
    """Read a file in YAML or JSON.

    Raises:
        BadInputError: it cannot be read, or is not valid; the message names the fields.
    """
    import yaml

    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInputError(Reason.INVALID_SPEC, f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise BadInputError(
            Reason.INVALID_SPEC, f"{path} is neither YAML nor JSON: {' '.join(str(error).split())}"
        ) from error
    if _is_map(body) and "kind" in body:
        if body["kind"] != KIND:
            raise BadInputError(Reason.INVALID_SPEC, f"{path} is of kind {body['kind']!r}, {KIND} is expected")
        body = body.get("spec")
    return validate(BuildSpec, body, str(path))
