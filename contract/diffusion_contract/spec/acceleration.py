"""Calls of the denoiser that compute less: which variant of it each call of the loop is."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from diffusion_contract.base import ApiModel, Rule
from diffusion_contract.enums import Component

if TYPE_CHECKING:
    from diffusion_contract.spec.pipeline import DiffusionPipelineSpec


class DeepCache(ApiModel):
    """Reuse of deep features, as DeepCache (arXiv 2312.00858)."""

    interval: Annotated[int, Field(ge=2, le=10)] = Field(
        description="Calls of the denoiser from one full call to the next. Those between compute only its shallowest "
        "layers, on the deep features of the last full call. Every step count must be larger."
    )
    branch: Annotated[int, Field(ge=0, le=2)] = Field(
        default=0,
        description="Deepest skip connection that is computed in every call, from 0, the shallowest; at most the "
        "layers of the UNet's first block. More are slower and nearer to the original.",
    )

    @property
    def layers(self) -> int:
        """Layers of the last up block that every call computes: one for each skip connection."""
        return self.branch + 1


class Acceleration(ApiModel):
    """Approximations that make images faster and different; docs/acceleration.md says at which price."""

    deep_cache: DeepCache | None = Field(default=None, description="Reuse of deep features in some calls.")


def denoiser_variant(call: int, acceleration: Acceleration | None) -> Component:
    """The variant of the denoiser that a call of the loop is.

    Args:
        call: from 0.
        acceleration: of the pipeline.
    """
    if acceleration is None or acceleration.deep_cache is None:
        return Component.DENOISER
    return Component.DENOISER if call % acceleration.deep_cache.interval == 0 else Component.DENOISER_SHALLOW


def denoiser_variants(acceleration: Acceleration | None) -> tuple[Component, ...]:
    """The variants that the loops of a pipeline are made of."""
    if acceleration is None or acceleration.deep_cache is None:
        return (Component.DENOISER,)
    return (Component.DENOISER, Component.DENOISER_SHALLOW)


_MORE_STEPS = (
    "deep features are computed once in acceleration.deepCache.interval calls: use more steps than that, or a smaller "
    "interval"
)
_NO_CONTROL_NETS = (
    "acceleration.deepCache reuses features that ControlNets have to change in every call: leave out one of both"
)


def has_enough_steps(acceleration: Acceleration | None, steps: Iterator[int]) -> bool:
    """Whether every loop has a shallow call after a second full one, or none at all."""
    cache = acceleration.deep_cache if acceleration is not None else None
    return cache is None or all(count > cache.interval for count in steps)


def acceleration_problems(
    acceleration: Acceleration | None, steps: Iterator[int], *, control_nets: bool
) -> Iterator[str]:
    """Why these loops cannot be accelerated.

    Args:
        acceleration: of the pipeline.
        steps: all step counts.
        control_nets: whether the denoiser reads residuals of ControlNets.
    """
    if not has_enough_steps(acceleration, steps):
        yield _MORE_STEPS
    if control_nets and acceleration is not None and acceleration.deep_cache is not None:
        yield _NO_CONTROL_NETS


def _steps(self: "DiffusionPipelineSpec") -> Iterator[int]:
    return (count for item in self.pipelines for count in item.steps)


_NO_CACHE = "!has(self.acceleration) || !has(self.acceleration.deepCache)"
ACCELERATION_RULES = (
    Rule(
        f"{_NO_CACHE} || self.pipelines.all(p, p.steps.all(s, s > self.acceleration.deepCache.interval))",
        _MORE_STEPS,
        lambda self: has_enough_steps(self.acceleration, _steps(self)),
        ".acceleration.deepCache",
    ),
    Rule(
        f"{_NO_CACHE} || !has(self.model.controlNets) || size(self.model.controlNets) == 0",
        _NO_CONTROL_NETS,
        lambda self: not self.model.control_nets or self.acceleration is None or self.acceleration.deep_cache is None,
        ".acceleration.deepCache",
    ),
)
"""Rules of a spec with an acceleration."""
