"""Variants of a pipeline that are compared with fixed weights."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from diffusion_contract.base import BY_NAME, ApiModel, ImageName, Rule
from diffusion_contract.spec.model import ComponentOverrides, Lora
from diffusion_contract.spec.sampling import Scheduler

if TYPE_CHECKING:
    from diffusion_contract.spec import DiffusionPipelineSpec

MAX_VARIANTS = 6
"""A route has room for 16 rules: two for each variant, and two for all other requests."""

VariantName = Annotated[str, Field(max_length=20, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
HeaderName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]


class UserHeader(ApiModel):
    """Header that assigns a user to one variant."""

    name: HeaderName = Field(
        default="x-diffusion-user",
        description="Name of the header. Its value begins with two lower-case hex digits of a hash, such as the "
        "SHA-256 of the user's id.",
    )


class VariantModel(ApiModel):
    """Overrides of the variant's model."""

    components: ComponentOverrides | None = Field(
        default=None, description="Component overrides; the other components are those of the pipeline."
    )
    loras: Annotated[list[Lora], Field(max_length=8)] | None = Field(
        default=None, description="LoRAs that replace those of the pipeline; an empty list removes them."
    )


class VariantServing(ApiModel):
    """Overrides of the variant's server."""

    image: ImageName = Field(description="Image of the server.")


class Variant(ApiModel):
    """A variant of the pipeline."""

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

    name: VariantName = Field(description="Name in status, messages and the test header.")
    weight: Annotated[int, Field(ge=1, le=99)] = Field(
        description="Weight: percent of the requests. The remainder goes to the stable revision."
    )
    model: VariantModel | None = Field(default=None, description="Overrides of the model.")
    scheduler: Scheduler | None = Field(
        default=None,
        description="Default scheduler of the variant; requests can still select those of spec.schedulers by name.",
    )
    serving: VariantServing | None = Field(default=None, description="Overrides of the server.")


class Experiment(ApiModel):
    """Variants with fixed weights, until the experiment is removed."""

    header: UserHeader = Field(
        default=UserHeader(),
        description="Requests with the same value of this header go to the same variant; others are split by weight.",
    )
    variants: Annotated[
        list[Variant],
        Field(min_length=1, max_length=MAX_VARIANTS),
        BY_NAME,
        Rule(
            "self.map(v, v.weight).sum() <= 99",
            "the weights of the variants must leave at least 1 % to the stable revision",
            lambda variants: sum(variant.weight for variant in variants) <= 99,  # noqa: PLR2004 - percent
        ),
    ] = Field(description="Variants that are compared with the stable revision.")


def apply_variant(variant: Variant, spec: "DiffusionPipelineSpec") -> "DiffusionPipelineSpec":
    """The pipeline with what the variant has instead; it has no rollout of its own."""
    changed: dict[str, object] = {"rollout": None}
    if variant.model is not None:
        changed["model"] = spec.model.model_copy(update=_model(variant.model, spec.model.components))
    if variant.serving is not None:
        changed["serving"] = spec.serving.model_copy(update={"image": variant.serving.image})
    if variant.scheduler is not None:
        changed |= _schedulers(variant.scheduler, tuple(spec.schedulers or ()))
    return spec.model_copy(update=changed)


def _model(changes: VariantModel, components: ComponentOverrides | None) -> dict[str, object]:
    fields: dict[str, object] = {}
    if changes.components is not None:
        overrides = (components or ComponentOverrides()).model_copy(update=changes.components.by_name())
        fields["components"] = overrides
    if changes.loras is not None:
        fields["loras"] = list(changes.loras) or None
    return fields


def _schedulers(scheduler: Scheduler, listed: tuple[Scheduler, ...]) -> dict[str, object]:
    """With this one as the default; it replaces the one of its name."""
    if not listed:
        return {"scheduler": scheduler}
    return {"schedulers": [scheduler, *(item for item in listed if item.request_name != scheduler.request_name)]}
