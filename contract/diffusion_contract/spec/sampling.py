"""How pictures are drawn: scheduler and tasks."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from diffusion_contract.base import (
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
                "!has(self.useKarrasSigmas) || !(self.type in ['DDIM', 'DDPM', 'EulerAncestral', 'LCM', 'PNDM'])",
                "DDIM, DDPM, EulerAncestral, LCM and PNDM know no useKarrasSigmas: leave it out, or use another type",
                fieldPath=".useKarrasSigmas",
            )
        )
    )

    type: Literal[
        "DDIM",
        "DDPM",
        "Euler",
        "EulerAncestral",
        "Heun",
        "LCM",
        "PNDM",
        "DPMSolverMultistep",
        "DEISMultistep",
        "UniPCMultistep",
    ] = Field(default="DDIM", description="Kind of sampler; Heun calls the denoiser twice a step.")
    name: Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[a-z0-9]+$")] | None = Field(
        default=None,
        description="How requests call it, where there are several; the type in lower case when not given.",
    )
    use_karras_sigmas: bool | None = Field(
        default=None,
        description="Noise levels of Karras et al. instead of evenly spaced timesteps. As the checkpoint says when "
        "left out.",
    )
    timestep_spacing: Literal["leading", "trailing", "linspace"] | None = Field(
        default=None, description="Which timesteps of the training are visited. As the checkpoint says when left out."
    )

    @property
    def called(self) -> str:
        """How requests call it."""
        return self.name or self.type.lower()


class Pipeline(ApiModel):
    """One task, served with one ensemble per step count."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.previews) || self.previews.all(k, self.steps.exists(s, k < s))",
                "a preview must come before the last step: use numbers below the largest of steps",
                fieldPath=".previews",
            )
        )
    )

    task: Literal["generate", "img2img", "inpaint"] = Field(description="What the ensemble does.")
    features: (
        Annotated[list[Literal["controlnet", "ip_adapter", "embeddings"]], Field(min_length=1, max_length=3)] | None
    ) = Field(
        default=None,
        description="What a request brings besides: control images, reference pictures, prompt embeddings instead of "
        "text. They are part of the ensemble's name.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    previews: Annotated[list[Annotated[int, Field(ge=1, le=63)]], Field(min_length=1, max_length=8)] | None = Field(
        default=None,
        description="Calls of the denoiser after which a request may have a preview, as output preview_<k>.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    steps: Annotated[list[StepCount], Field(min_length=1, max_length=16)] = Field(
        default=[20],
        description="Step counts N; each becomes the ensemble `<task>[_<features>]_<N>_pipeline`.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
