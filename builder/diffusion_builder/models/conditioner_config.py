"""Configuration of the conditioner: the contents of `conditioner.json`, and the ensemble of a request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .python_models import GENERATE, IMG2IMG, INPAINT
from .request_inputs import SupportedSizes
from .schedule import SchedulerSettings, loop_for

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class TaskDefaults:
    """Defaults of diffusers' pipeline of a family and task.

    Args:
        guidance_scale: of the pipeline.
        strength: of one that starts from an image; 1 for others.
    """

    guidance_scale: float
    strength: float = 1.0


_DEFAULTS: Mapping[str, TaskDefaults] = {
    GENERATE: TaskDefaults(7.5),
    IMG2IMG: TaskDefaults(7.5, 0.8),
    INPAINT: TaskDefaults(7.5),
}
_XL_DEFAULTS: Mapping[str, TaskDefaults] = {
    GENERATE: TaskDefaults(5.0),
    IMG2IMG: TaskDefaults(5.0, 0.3),
    INPAINT: TaskDefaults(7.5, 0.9999),
}


@dataclass(frozen=True)
class ConditionerConfig:
    """The numbers of a checkpoint and its profile.

    Args:
        channels: of a latent.
        pixels_per_latent: edge of the square of pixels that one latent element stands for.
        sizes: of images.
        slots: largest number of state slots of a scheduler.
        schedulers: name, in lower case, to settings of those that a request may choose among, the default one first.
        inpainting: whether the denoiser is an inpainting UNet, which reads the mask itself.
        text: elements and width of one piece of text's embeddings, and the largest number of pieces.
        image: elements and width of one reference image's embeddings; zeros without an IP-Adapter.
        control_nets: their names.
        pooled_width: features of the embedding of a whole prompt; 0 without a second text encoder.
        deterministic_encoder: whether an image has one latent, for which nothing is drawn.
        denoising_start: fraction of the denoising after which a refiner takes over; None without one.
    """

    channels: int
    pixels_per_latent: int
    sizes: SupportedSizes
    slots: int
    schedulers: Mapping[str, SchedulerSettings]
    inpainting: bool = False
    text: tuple[int, int, int] = (0, 0, 0)
    image: tuple[int, int] = (0, 0)
    control_nets: tuple[str, ...] = ()
    pooled_width: int = 0
    deterministic_encoder: bool = False
    denoising_start: float | None = None

    @classmethod
    def from_json(cls, text: str) -> ConditionerConfig:
        """Read the file that the builder has written.

        Raises:
            ScheduleError: a scheduler is not supported.
        """
        body = json.loads(text)
        schedulers = {entry.pop("name"): SchedulerSettings.from_json(entry) for entry in body["schedulers"]}
        return cls(
            body["channels"],
            body["pixelsPerLatent"],
            SupportedSizes.from_json(body),
            body["slots"],
            schedulers,
            inpainting=body["inpainting"],
            text=(body["textLength"], body["textWidth"], body["textChunks"]),
            image=(body["imageLength"], body["imageWidth"]),
            control_nets=tuple(body["controlNets"]),
            pooled_width=body.get("pooledWidth", 0),
            deterministic_encoder=body.get("deterministicEncoder", False),
            denoising_start=body.get("denoisingStart"),
        )

    @property
    def defaults(self) -> Mapping[str, TaskDefaults]:
        """What requests of each task leave out."""
        return _XL_DEFAULTS if self.pooled_width else _DEFAULTS

    @property
    def default(self) -> str:
        """Name of the default scheduler."""
        return next(iter(self.schedulers))

    def loop(self, scheduler: str, steps: int) -> tuple[int, int]:
        """Denoiser calls for this number of steps, and how many of them are the base's."""
        return loop_for(self.schedulers[scheduler], steps, self.denoising_start)


@dataclass(frozen=True)
class EnsembleRef:
    """The ensemble that a request was sent to.

    Args:
        task: `generate`, `img2img` or `inpaint`.
        steps: the step count in its name.
        scheduler: name of the scheduler in its name; None for the ensemble of the default scheduler.
        features: the parts of its name between task and steps.
    """

    task: str
    steps: int
    scheduler: str | None = None
    features: tuple[str, ...] = ()

    @classmethod
    def of(cls, key: str, features: tuple[str, ...]) -> EnsembleRef:
        """Read `<task>_<steps>[_<scheduler>]`, the name of the table that the ensemble maps."""
        task, steps, *name = key.split("_", 2)
        return cls(task, int(steps), name[0] if name else None, features)

    def ensemble(self, config: ConditionerConfig, scheduler: str) -> str:
        """Name of the same ensemble with another scheduler."""
        is_shared = config.loop(scheduler, self.steps) == config.loop(config.default, self.steps)
        suffix = [] if is_shared else [scheduler]
        return "_".join([self.task, *self.features, str(self.steps), *suffix, "pipeline"])

    def loop(self, config: ConditionerConfig) -> tuple[int, int]:
        """Denoiser calls of this ensemble, and how many of them are the base's."""
        return config.loop(self.scheduler or config.default, self.steps)
