"""Where a sample starts: its schedule, its first latent and the noise drawn for it, as in diffusers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .errors import InvalidRequest
from .schedule import begin_for, refined_schedule
from .schedule import schedule as schedule_of

if TYPE_CHECKING:
    from .conditioner_config import ConditionerConfig, EnsembleRef
    from .noise import Floats, Generator
    from .schedule import Schedule

# Mean and standard deviation [C, h, w] of an image's latent; None where the encoder gives one latent.
Moments = tuple["Floats", "Floats | None"]


def make_schedule(config: ConditionerConfig, ensemble: EnsembleRef, name: str, strength: float, eta: float) -> Schedule:
    """The schedule of one sample.

    Raises:
        InvalidRequest: the scheduler is not listed or belongs to another ensemble, or has no such schedule.
    """
    # Types are written in upper and lower case where they are configured.
    name = name.lower()
    settings = config.schedulers.get(name)
    if settings is None:
        raise InvalidRequest(f"scheduler {name!r} is not supported: send {' or '.join(config.schedulers)}")
    calls, _ = loop = ensemble.loop(config)
    if config.loop(name, ensemble.steps) != loop or ensemble.scheduler not in (None, name):
        raise InvalidRequest(
            f"scheduler {name} is not supported by this ensemble: send the request to {ensemble.ensemble(config, name)}"
        )
    if config.denoising_start is not None:
        return refined_schedule(settings, ensemble.steps, config.denoising_start, eta)
    schedule = schedule_of(settings, *begin_for(settings, ensemble.steps, strength), eta)
    if schedule.calls != calls:
        raise InvalidRequest(
            f"scheduler {name} calls the denoiser {schedule.calls} times for {ensemble.steps} step with strength "
            f"{strength}: send strength 1, or use an ensemble of at least 2 steps"
        )
    return schedule


@dataclass(frozen=True)
class InitialState:
    """Where a sample starts; arrays [C, h, w].

    Args:
        latent: the first latent.
        image_latent: latent of the input image; zeros without one.
        noise: what was added to it.
        masked: latent of the image without the region to repaint; zeros where it is not needed.
    """

    latent: Floats
    image_latent: Floats
    noise: Floats
    masked: Floats


@dataclass(frozen=True)
class ImageMoments:
    """A sample's input image, as the VAE's encoder gives it.

    Args:
        image: the input image; None when starting from noise.
        masked: the same without the region to repaint, when the denoiser reads it.
    """

    image: Moments | None = None
    masked: Moments | None = None


def noise_start(schedule: Schedule, generator: Generator, shape: tuple[int, ...]) -> InitialState:
    """Start of `generate`."""
    noise, zeros = generator.normal(shape), np.zeros(shape, np.float32)
    return InitialState(noise * np.float32(schedule.initial_scale), zeros, noise, zeros)


def image_start(schedule: Schedule, generator: Generator, moments: Moments) -> InitialState:
    """Start of `img2img`: the latent is drawn before the noise, as `prepare_latents` does."""
    image_latent = _sample(moments, generator)
    noise = generator.normal(image_latent.shape)
    return InitialState(_add_noise(schedule, image_latent, noise), image_latent, noise, np.zeros_like(image_latent))


def inpaint_start(
    schedule: Schedule, generator: Generator, moments: ImageMoments, *, inpainting_unet: bool, from_noise: bool
) -> InitialState:
    """Start of `inpaint`, in the order of `StableDiffusionInpaintPipeline`.

    Args:
        schedule: of the sample.
        generator: of the sample.
        moments: of the image, or of the masked one alone.
        inpainting_unet: the denoiser reads mask and masked image itself; then the image is drawn only when needed.
        from_noise: strength 1, which starts from noise alone.

    Raises:
        InvalidRequest: there is no image.
    """
    image = moments.image or moments.masked
    if image is None:
        raise InvalidRequest("input_image is missing: send the image to repaint")
    zeros = np.zeros_like(image[0])
    image_latent = zeros if inpainting_unet and from_noise else _sample(image, generator)
    noise = generator.normal(zeros.shape)
    # Also drawn for denoisers that do not read it: what is drawn after it depends on that.
    masked = _sample(moments.masked or (zeros, None if image[1] is None else zeros), generator)
    latent = noise * np.float32(schedule.initial_scale) if from_noise else _add_noise(schedule, image_latent, noise)
    return InitialState(latent, image_latent, noise, masked)


def _sample(moments: Moments, generator: Generator) -> Floats:
    mean, deviation = moments
    if deviation is None:
        return mean
    latent: Floats = mean + deviation * generator.normal(mean.shape)
    return latent


def _add_noise(schedule: Schedule, image_latent: Floats, noise: Floats) -> Floats:
    signal, spread = schedule.first
    latent: Floats = np.float32(signal) * image_latent + np.float32(spread) * noise
    return latent
