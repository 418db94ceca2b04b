"""How images are generated: scheduler and tasks."""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field

from diffusion_contract.base import SET, ApiModel, Rule
from diffusion_contract.limits import SCHEDULER_PATTERN
from diffusion_contract.tensors import MAX_STEPS

StepCount = Annotated[int, Field(ge=1, le=MAX_STEPS)]
PreviewCount = Annotated[int, Field(ge=1, le=MAX_STEPS - 1)]
Task = Literal["generate", "img2img", "inpaint"]
Feature = Literal["controlnet", "ip_adapter", "embeddings"]
PredictionType = Literal["epsilon", "v_prediction", "sample"]

SchedulerName = Literal[
    "DDIM",
    "DDPM",
    "Euler",
    "EulerAncestral",
    "Heun",
    "LCM",
    "TCD",
    "PNDM",
    "DPMSolverMultistep",
    "DEISMultistep",
    "UniPCMultistep",
    "EDMEuler",
    "EDMDPMSolverMultistep",
]

NO_SIGMAS = ("DDIM", "DDPM", "EulerAncestral", "LCM", "PNDM", "TCD")
NO_SAMPLE_PREDICTION = ("EulerAncestral", "PNDM")


def _no_sigmas(field: str, attribute: str) -> Rule:
    """Schedulers of timesteps know no noise levels that a rule could space."""
    types = ", ".join(f"'{name}'" for name in NO_SIGMAS)
    return Rule(
        f"!has(self.{field}) || !has(self.type) || !(self.type in [{types}])",
        f"{', '.join(NO_SIGMAS[:-1])} and {NO_SIGMAS[-1]} know no {field}: leave it out, or use another type",
        lambda self: getattr(self, attribute) is None or self.type not in NO_SIGMAS,
        f".{field}",
    )


class Scheduler(ApiModel):
    """Noise scheduler. It is a table, not an engine: changing it compiles nothing."""

    rules = (
        _no_sigmas("useKarrasSigmas", "use_karras_sigmas"),
        _no_sigmas("useExponentialSigmas", "use_exponential_sigmas"),
        Rule(
            "!has(self.useKarrasSigmas) || !self.useKarrasSigmas || !has(self.useExponentialSigmas) || "
            "!self.useExponentialSigmas",
            "noise levels are spaced by one rule: leave out useKarrasSigmas or useExponentialSigmas",
            lambda self: not (self.use_karras_sigmas and self.use_exponential_sigmas),
            ".useExponentialSigmas",
        ),
        Rule(
            "!has(self.algorithmType) || (has(self.type) && self.type == 'DPMSolverMultistep')",
            "algorithmType is a setting of DPMSolverMultistep: set that type, or leave it out",
            lambda self: self.algorithm_type is None or self.type == "DPMSolverMultistep",
            ".algorithmType",
        ),
        Rule(
            "!has(self.predictionType) || self.predictionType != 'sample' || !has(self.type) || "
            "!(self.type in ['EulerAncestral', 'PNDM'])",
            "EulerAncestral and PNDM know no predictionType sample: use another type",
            lambda self: self.prediction_type != "sample" or self.type not in NO_SAMPLE_PREDICTION,
            ".predictionType",
        ),
        # Once for all fields: this schema is in the CRD three times, whose size is limited.
        Rule(
            "!has(self.type) || !self.type.startsWith('EDM') || !(has(self.useKarrasSigmas) || "
            "has(self.useExponentialSigmas) || has(self.timestepSpacing) || "
            "(has(self.predictionType) && self.predictionType == 'sample'))",
            "the noise levels of EDM are the checkpoint's: leave out useKarrasSigmas, useExponentialSigmas, "
            "timestepSpacing and predictionType sample",
            lambda self: not (self.type or "").startswith("EDM") or not self.spaces_levels,
            ".type",
        ),
    )

    type: SchedulerName | None = Field(
        default=None,
        description="Algorithm, as in diffusers; Heun calls the denoiser twice a step. Defaults to the checkpoint's.",
    )
    name: Annotated[str, Field(min_length=1, max_length=32, pattern=SCHEDULER_PATTERN)] | None = Field(
        default=None,
        description="Name used in requests, if there are several. Defaults to the type in lower case.",
    )
    use_karras_sigmas: bool | None = Field(
        default=None,
        description="Noise levels of Karras et al. instead of evenly spaced timesteps. Defaults to the "
        "checkpoint's value.",
    )
    use_exponential_sigmas: bool | None = Field(
        default=None,
        description="Noise levels whose logarithms are evenly spaced. Defaults to the checkpoint's value.",
    )
    algorithm_type: Literal["dpmsolver++", "sde-dpmsolver++"] | None = Field(
        default=None,
        description="Of DPMSolverMultistep: the ordinary differential equation, or the stochastic one, which draws "
        "noise at each step. Defaults to the checkpoint's value.",
    )
    timestep_spacing: Literal["leading", "trailing", "linspace"] | None = Field(
        default=None, description="Spacing of the timesteps. Defaults to the checkpoint's value."
    )
    prediction_type: PredictionType | None = Field(
        default=None, description="Prediction type of the denoiser. Defaults to the checkpoint's value."
    )

    @property
    def spaces_levels(self) -> bool:
        """Whether something is set that schedulers of EDM do not have."""
        settings = (self.use_karras_sigmas, self.use_exponential_sigmas, self.timestep_spacing)
        return self.prediction_type == "sample" or any(setting is not None for setting in settings)

    @property
    def request_name(self) -> str:
        """Name used in requests; empty while the checkpoint decides about the type."""
        return self.name or (self.type or "").lower()

    def resolve(self, class_name: str) -> Self:
        """Take the type of the checkpoint, unless it is set.

        Args:
            class_name: diffusers' class in the checkpoint's scheduler_config.json, such as `EulerDiscreteScheduler`.

        Raises:
            ValueError: no type stands for this class.
        """
        if self.type is not None:
            return self
        type_ = class_name.removesuffix("Scheduler").removesuffix("Discrete")
        if type_ not in get_args(SchedulerName):
            raise ValueError(
                f"the checkpoint's scheduler {class_name or '(none)'} is not supported: set spec.scheduler.type, "
                f"such as DPMSolverMultistep"
            )
        return self.model_copy(update={"type": type_})

    def overrides(self) -> dict[str, object]:
        """The settings that are given, by their names in diffusers' configurations."""
        return self.model_dump(exclude={"type", "name"}, exclude_none=True)


def _precede_last_step(self: "Pipeline") -> bool:
    return all(count < max(self.steps) for count in self.previews or ())


class Pipeline(ApiModel):
    """One task, served with one ensemble per step count."""

    rules = (
        Rule(
            "!has(self.previews) || self.previews.all(k, self.steps.exists(s, k < s))",
            "a preview must come before the last step: use numbers below the largest of steps",
            _precede_last_step,
            ".previews",
        ),
    )

    task: Task = Field(description="Task of the ensemble.")
    features: Annotated[list[Feature], Field(min_length=1, max_length=3), SET] | None = Field(
        default=None,
        description="Additional inputs of a request: control images, reference images, prompt embeddings instead of "
        "text. They are part of the ensemble's name.",
    )
    previews: Annotated[list[PreviewCount], Field(min_length=1, max_length=8), SET] | None = Field(
        default=None,
        description="Calls of the denoiser after which a request may have a preview, as output preview_<k>.",
    )
    steps: Annotated[list[StepCount], Field(min_length=1, max_length=16), SET] = Field(
        default=[20],
        description="Step counts N; each becomes the ensemble `<task>[_<features>]_<N>_pipeline`.",
    )
