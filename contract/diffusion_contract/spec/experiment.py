"""Variants of a pipeline that are compared at fixed shares of the requests."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from diffusion_contract.base import BY_NAME, ApiModel, Rule
from diffusion_contract.spec.model import Lora, Overrides
from diffusion_contract.spec.sampling import Scheduler

if TYPE_CHECKING:
    from diffusion_contract.spec import DiffusionPipelineSpec

MOST_VARIANTS = 6
"""A route has room for 16 rules: two for each variant, and two for everybody else."""

VariantName = Annotated[str, Field(max_length=20, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
HeaderName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]


class UserHeader(ApiModel):
    """The header that keeps a user with the same variant."""

    name: HeaderName = Field(
        default="x-diffusion-user",
        description="Name of the header. Its value begins with two lower-case hex digits of a hash, such as the "
        "SHA-256 of the user's id.",
    )


class VariantModel(ApiModel):
    """What the variant's model has instead."""

    components: Overrides | None = Field(
        default=None, description="Components that come from elsewhere; those that are not named stay as they are."
    )
    loras: Annotated[list[Lora], Field(max_length=8)] | None = Field(
        default=None, description="LoRAs instead of those of the pipeline; none at all when empty."
    )


class VariantServing(ApiModel):
    """What the variant's server has instead."""

    image: Annotated[str, Field(min_length=1, max_length=512)] = Field(description="Image of the server.")


class Variant(ApiModel):
    """The pipeline with something else in it."""

    rules = (
        Rule(
            "has(self.model) || has(self.scheduler) || has(self.serving)",
            "a variant needs something that is different: give it model, scheduler or serving",
            lambda self: (self.model, self.scheduler, self.serving) != (None, None, None),
        ),
        Rule(
            "self.name != 'stable'",
            "stable is the pipeline itself: give the variant another name",
            lambda self: self.name != "stable",
        ),
    )

    name: VariantName = Field(description="How status, the tester's header and messages call it.")
    weight: Annotated[int, Field(ge=1, le=99)] = Field(
        description="Share of the requests, percent. What is left goes to the stable revision."
    )
    model: VariantModel | None = Field(default=None, description="What its model has instead.")
    scheduler: Scheduler | None = Field(
        default=None,
        description="Its default sampler; others that spec.schedulers lists can still be asked for by name.",
    )
    serving: VariantServing | None = Field(default=None, description="What its server has instead.")


class Experiment(ApiModel):
    """Variants that are held at fixed shares of the requests until told otherwise."""

    header: UserHeader = Field(
        default=UserHeader(),
        description="Requests with this header stay with one variant; others are split by weight, one by one.",
    )
    variants: Annotated[
        list[Variant],
        Field(min_length=1, max_length=MOST_VARIANTS),
        BY_NAME,
        Rule(
            "self.map(v, v.weight).sum() <= 99",
            "the weights of the variants must leave at least 1 % to the stable revision",
            lambda variants: sum(variant.weight for variant in variants) <= 99,  # noqa: PLR2004 - percent
        ),
    ] = Field(description="What is compared with the stable revision.")


def applied(variant: Variant, spec: "DiffusionPipelineSpec") -> "DiffusionPipelineSpec":
    """The pipeline with what the variant has instead; it has no rollout of its own."""
    changed: dict[str, object] = {"rollout": None}
    if variant.model is not None:
        changed["model"] = spec.model.model_copy(update=_model(variant.model, spec.model.components))
    if variant.serving is not None:
        changed["serving"] = spec.serving.model_copy(update={"image": variant.serving.image})
    if variant.scheduler is not None:
        changed |= _schedulers(variant.scheduler, tuple(spec.schedulers or ()))
    return spec.model_copy(update=changed)


def _model(changes: VariantModel, components: Overrides | None) -> dict[str, object]:
    fields: dict[str, object] = {}
    if changes.components is not None:
        overrides = (components or Overrides()).model_copy(update=changes.components.by_name())
        fields["components"] = overrides
    if changes.loras is not None:
        fields["loras"] = list(changes.loras) or None
    return fields


def _schedulers(scheduler: Scheduler, listed: tuple[Scheduler, ...]) -> dict[str, object]:
    """With this one as the default; it replaces the one of its name."""
    if not listed:
        return {"scheduler": scheduler}
    return {"schedulers": [scheduler, *(item for item in listed if item.request_name != scheduler.request_name)]}
