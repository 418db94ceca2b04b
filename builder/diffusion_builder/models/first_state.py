"""Where a sample starts: its schedule, its first latent and the noise that is drawn for it, as in diffusers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .plan import ConditionError
from .schedule import ScheduleError, begin_for, schedule

if TYPE_CHECKING:
    from .noise import Floats, Generator
    from .plan import Plan, Target
    from .schedule import Schedule

# Mean and standard deviation [C, h, w] of a picture's latent.
Moments = tuple["Floats", "Floats"]


def choose(plan: Plan, target: Target, name: str, strength: float, eta: float) -> Schedule:
    """The schedule of one sample.

    Raises:
        ConditionError: the scheduler is not listed or belongs to another ensemble, or has no such schedule.
    """
    # Types are written in upper and lower case where they are configured.
    name = name.lower()
    settings = plan.schedulers.get(name)
    if settings is None:
        raise ConditionError(f"scheduler {name!r} is not served: send {' or '.join(plan.schedulers)}")
    calls = target.calls(plan)
    if plan.calls(name, target.steps) != calls or target.scheduler not in (None, name):
        raise ConditionError(
            f"scheduler {name} is not served by this ensemble: send the request to {target.ensemble(plan, name)}"
        )
    try:
        chosen = schedule(settings, *begin_for(settings, target.steps, strength), eta)
    except ScheduleError as error:
        raise ConditionError(str(error)) from error
    if chosen.calls != calls:
        raise ConditionError(
            f"scheduler {name} calls the denoiser {chosen.calls} times for {target.steps} step with strength "
            f"{strength}: send strength 1, or use an ensemble of at least 2 steps"
        )
    return chosen


@dataclass(frozen=True)
class Start:
    """Where a sample starts; arrays [C, h, w].

    Args:
        latent: the first latent.
        clean: latent of the picture; zeros without one.
        noise: what was added to it.
        masked: latent of the picture without what is repainted; zeros where it is not needed.
    """

    latent: Floats
    clean: Floats
    noise: Floats
    masked: Floats


@dataclass(frozen=True)
class Pictures:
    """A sample's pictures, as the VAE's encoder gives them.

    Args:
        whole: the picture; None when starting from noise.
        masked: the same without what is repainted, when the denoiser reads it.
    """

    whole: Moments | None = None
    masked: Moments | None = None


def from_noise(chosen: Schedule, generator: Generator, shape: tuple[int, ...]) -> Start:
    """Start of `generate`."""
    noise, nothing = generator.normal(shape), np.zeros(shape, np.float32)
    return Start(noise * np.float32(chosen.initial_scale), nothing, noise, nothing)


def from_picture(chosen: Schedule, generator: Generator, picture: Moments) -> Start:
    """Start of `img2img`: the latent is drawn before the noise, as `prepare_latents` does."""
    clean = _drawn(picture, generator)
    noise = generator.normal(clean.shape)
    return Start(_noisy(chosen, clean, noise), clean, noise, np.zeros_like(clean))


def repainting(
    chosen: Schedule, generator: Generator, pictures: Pictures, *, made_for_it: bool, from_scratch: bool
) -> Start:
    """Start of `inpaint`, in the order of `StableDiffusionInpaintPipeline`.

    Args:
        chosen: the schedule.
        generator: of the sample.
        pictures: at least the one that is needed.
        made_for_it: the denoiser reads mask and masked picture itself; then the picture is drawn only when needed.
        from_scratch: strength 1, which starts from noise alone.
    """
    whole = pictures.whole or pictures.masked
    if whole is None:
        raise ConditionError("input_image is missing: send the picture to repaint")
    nothing = np.zeros_like(whole[0])
    clean = nothing if made_for_it and from_scratch else _drawn(whole, generator)
    noise = generator.normal(nothing.shape)
    # Also drawn for denoisers that do not read it: what is drawn after it depends on that.
    masked = _drawn(pictures.masked or (nothing, nothing), generator)
    latent = noise * np.float32(chosen.initial_scale) if from_scratch else _noisy(chosen, clean, noise)
    return Start(latent, clean, noise, masked)


def _drawn(moments: Moments, generator: Generator) -> Floats:
    mean, deviation = moments
    drawn: Floats = mean + deviation * generator.normal(mean.shape)
    return drawn


def _noisy(chosen: Schedule, clean: Floats, noise: Floats) -> Floats:
    signal, spread = chosen.first
    mixed: Floats = np.float32(signal) * clean + np.float32(spread) * noise
    return mixed
