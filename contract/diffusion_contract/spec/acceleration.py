"""Calls of the denoiser that compute less: which variant of it each call of the loop is."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from diffusion_contract.base import ApiModel, Rule
from diffusion_contract.enums import Component

if TYPE_CHECKING:
    from diffusion_contract.spec.pipeline import DiffusionPipelineSpec

# By whether a call is shallow, and whether it is guided.
_VARIANTS: Mapping[tuple[bool, bool], Component] = {
    (False, True): Component.DENOISER,
    (True, True): Component.DENOISER_SHALLOW,
    (False, False): Component.DENOISER_UNGUIDED,
    (True, False): Component.DENOISER_SHALLOW_UNGUIDED,
}


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


class GuidanceRange(ApiModel):
    """Guidance in a range of the calls, as `stop` of diffusers' guiders."""

    stop: Annotated[float, Field(ge=0.05, le=0.95)] = Field(
        description="Fraction of the calls after which the denoiser is called with the positive prompt alone, at half "
        "the cost."
    )


class Acceleration(ApiModel):
    """Approximations that make images faster and different; docs/acceleration.md says at which price."""

    deep_cache: DeepCache | None = Field(default=None, description="Reuse of deep features in some calls.")
    guidance: GuidanceRange | None = Field(default=None, description="Guidance in the first calls only.")


def guided_calls(calls: int, acceleration: Acceleration | None) -> int:
    """How many calls of a loop are guided: the first ones; rounded down, as diffusers does.

    Args:
        calls: of the loop.
        acceleration: of the pipeline.
    """
    if acceleration is None or acceleration.guidance is None:
        return calls
    return int(acceleration.guidance.stop * calls)


def denoiser_variant(call: int, calls: int, acceleration: Acceleration | None) -> Component:
    """The variant of the denoiser that a call of the loop is.

    Args:
        call: from 0.
        calls: of the loop.
        acceleration: of the pipeline.
    """
    cache = acceleration.deep_cache if acceleration is not None else None
    is_shallow = cache is not None and call % cache.interval != 0
    return _VARIANTS[is_shallow, call < guided_calls(calls, acceleration)]


def denoiser_variants(acceleration: Acceleration | None) -> tuple[Component, ...]:
    """The variants that the loops of a pipeline are made of, the plain one first."""
    depths = (False, True) if acceleration is not None and acceleration.deep_cache is not None else (False,)
    guided = (True, False) if acceleration is not None and acceleration.guidance is not None else (True,)
    return tuple(_VARIANTS[is_shallow, is_guided] for is_guided in guided for is_shallow in depths)


_MORE_STEPS = (
    "deep features are computed once in acceleration.deepCache.interval calls: use more steps than that, or a smaller "
    "interval"
)
_NO_CONTROL_NETS = (
    "acceleration.deepCache reuses features that ControlNets have to change in every call: leave out one of both"
)
_NO_GUIDANCE = "guidance would stop before the first call: use more steps, or a larger acceleration.guidance.stop"


def _has_second_full_call(acceleration: Acceleration | None, steps: Sequence[int]) -> bool:
    cache = acceleration.deep_cache if acceleration is not None else None
    return cache is None or all(count > cache.interval for count in steps)


def _has_guided_call(acceleration: Acceleration | None, steps: Sequence[int]) -> bool:
    return all(guided_calls(count, acceleration) > 0 for count in steps)


def _reuses_controlled_features(acceleration: Acceleration | None, *, control_nets: bool) -> bool:
    return control_nets and acceleration is not None and acceleration.deep_cache is not None


def acceleration_problems(
    acceleration: Acceleration | None, steps: Sequence[int], *, control_nets: bool
) -> Iterator[str]:
    """Why these loops cannot be accelerated.

    Args:
        acceleration: of the pipeline.
        steps: all step counts.
        control_nets: whether the denoiser reads residuals of ControlNets.
    """
    if not _has_second_full_call(acceleration, steps):
        yield _MORE_STEPS
    if not _has_guided_call(acceleration, steps):
        yield _NO_GUIDANCE
    if _reuses_controlled_features(acceleration, control_nets=control_nets):
        yield _NO_CONTROL_NETS


def _steps(self: "DiffusionPipelineSpec") -> tuple[int, ...]:
    return tuple(count for item in self.pipelines for count in item.steps)


_NO_CACHE = "!has(self.acceleration) || !has(self.acceleration.deepCache)"
ACCELERATION_RULES = (
    Rule(
        f"{_NO_CACHE} || self.pipelines.all(p, p.steps.all(s, s > self.acceleration.deepCache.interval))",
        _MORE_STEPS,
        lambda self: _has_second_full_call(self.acceleration, _steps(self)),
        ".acceleration.deepCache",
    ),
    Rule(
        f"{_NO_CACHE} || !has(self.model.controlNets) || size(self.model.controlNets) == 0",
        _NO_CONTROL_NETS,
        lambda self: not _reuses_controlled_features(self.acceleration, control_nets=bool(self.model.control_nets)),
        ".acceleration.deepCache",
    ),
    Rule(
        "!has(self.acceleration) || !has(self.acceleration.guidance) || "
        "self.pipelines.all(p, p.steps.all(s, double(s) * self.acceleration.guidance.stop >= 1.0))",
        _NO_GUIDANCE,
        lambda self: _has_guided_call(self.acceleration, _steps(self)),
        ".acceleration.guidance",
    ),
)
"""Rules of a spec with an acceleration."""
