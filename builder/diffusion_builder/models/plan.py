"""What the conditioner knows of its repository: the contents of `plan.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .schedule import SchedulerSettings, calls_for
from .sizes import Side

if TYPE_CHECKING:
    from collections.abc import Mapping


class ConditionError(Exception):
    """The request asks for something that is not served; the message says what to send."""


@dataclass(frozen=True)
class Plan:
    """A repository, as far as the conditioner is concerned.

    Args:
        channels: of a latent.
        pixels_per_latent: edge of the square of pixels that one latent element stands for.
        height: the profile.
        width: the profile.
        slots: state slots of the scheduler that has most.
        schedulers: name, in lower case, to settings of those that a request may choose among, the default one first.
        inpainting: whether the denoiser was made for inpainting and reads the mask itself.
        text: elements and width of one piece of text's embeddings, and how many pieces are served.
        image: elements and width of one reference picture's embeddings; zeros where there are none.
        control_nets: their names.
    """

    channels: int
    pixels_per_latent: int
    height: Side
    width: Side
    slots: int
    schedulers: Mapping[str, SchedulerSettings]
    inpainting: bool = False
    text: tuple[int, int, int] = (0, 0, 0)
    image: tuple[int, int] = (0, 0)
    control_nets: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read the file that the builder has written.

        Raises:
            ScheduleError: a scheduler is not served.
        """
        body = json.loads(text)
        schedulers = {item.pop("name"): SchedulerSettings.from_json(item) for item in body["schedulers"]}
        return cls(
            body["channels"],
            body["pixelsPerLatent"],
            Side(**body["height"]),
            Side(**body["width"]),
            body["slots"],
            schedulers,
            inpainting=body["inpainting"],
            text=(body["textLength"], body["textWidth"], body["textChunks"]),
            image=(body["imageLength"], body["imageWidth"]),
            control_nets=tuple(body["controlNets"]),
        )

    @property
    def default(self) -> str:
        """Name of the scheduler of a request that names none."""
        return next(iter(self.schedulers))

    def calls(self, scheduler: str, steps: int) -> int:
        """How often the denoiser is called for so many steps."""
        return calls_for(self.schedulers[scheduler].type, steps)


@dataclass(frozen=True)
class Target:
    """The ensemble that a request was sent to.

    Args:
        task: `generate`, `img2img` or `inpaint`.
        steps: the step count in its name.
        scheduler: name of the one in its name; None for the ensemble that the default scheduler shares with others.
        features: the parts of its name between task and steps.
    """

    task: str
    steps: int
    scheduler: str | None = None
    features: tuple[str, ...] = ()

    @classmethod
    def of(cls, key: str, features: tuple[str, ...]) -> Target:
        """Read `<task>_<steps>[_<scheduler>]`, which the ensemble says by the table that it maps."""
        task, steps, *name = key.split("_", 2)
        return cls(task, int(steps), name[0] if name else None, features)

    def ensemble(self, plan: Plan, scheduler: str) -> str:
        """Name of the ensemble that does the same with another scheduler."""
        shared = plan.calls(scheduler, self.steps) == plan.calls(plan.default, self.steps)
        suffix = [] if shared else [scheduler]
        return "_".join([self.task, *self.features, str(self.steps), *suffix, "pipeline"])

    def calls(self, plan: Plan) -> int:
        """How often this ensemble calls the denoiser."""
        return plan.calls(self.scheduler or plan.default, self.steps)
