"""How pictures are drawn: scheduler and tasks."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from diffusion_operator.api.base import (
    ApiModel,
    rule,
    rules,
)

StepCount = Annotated[int, Field(ge=1, le=64)]


class Scheduler(ApiModel):
    """Sampler of the diffusion process. It is a table, not an engine: changing it compiles nothing."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.useKarrasSigmas) || !(self.type in ['DDIM', 'PNDM'])",
                "DDIM and PNDM know no useKarrasSigmas: leave it out, or use another type",
                fieldPath=".useKarrasSigmas",
            )
        )
    )

    type: Literal["DDIM", "Euler", "Heun", "PNDM", "DPMSolverMultistep", "DEISMultistep", "UniPCMultistep"] = Field(
        default="DDIM", description="Name of the sampler; Heun calls the denoiser twice a step."
    )
    use_karras_sigmas: bool | None = Field(
        default=None,
        description="Noise levels of Karras et al. instead of evenly spaced timesteps. As the checkpoint says when "
        "left out.",
    )
    timestep_spacing: Literal["leading", "trailing", "linspace"] | None = Field(
        default=None, description="Which timesteps of the training are visited. As the checkpoint says when left out."
    )


class Pipeline(ApiModel):
    """One task, served with one ensemble per step count."""

    task: Literal["generate"] = Field(description="What the ensemble does.")
    steps: Annotated[list[StepCount], Field(min_length=1, max_length=16)] = Field(
        default=[20],
        description="Step counts N; each becomes the ensemble `<task>_<N>_pipeline`.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
