"""What an ensemble is made for."""

from __future__ import annotations

from dataclasses import dataclass

from diffusion_builder.repository import python_models


@dataclass(frozen=True)
class Tier:
    """What an ensemble is made for.

    Args:
        task: `generate`, `img2img` or `inpaint`.
        features: what it is given besides a text, in the order of `python_models.FEATURES`.
        steps: the step count that users ask for and that the ensemble's name says.
        calls: how often the denoiser is called for it; some schedulers call it more than once a step.
        scheduler: name of the scheduler that it is made for; None when it is the one that the default scheduler
            shares with all others that call the denoiser as often.
        draws: whether one of its schedulers may draw fresh noise in a step.
        previews: denoiser calls after which the picture can be looked at.
    """

    task: str
    steps: int
    calls: int
    features: tuple[str, ...] = ()
    scheduler: str | None = None
    draws: bool = False
    previews: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        """By which it names its table."""
        return f"{self.task}_{self._tier}"

    @property
    def name(self) -> str:
        """Under which it is served."""
        return python_models.ensemble_name(self.task, self.features, self._tier)

    @property
    def _tier(self) -> str:
        return f"{self.steps}_{self.scheduler}" if self.scheduler else str(self.steps)

    @property
    def starts_from_picture(self) -> bool:
        """Whether a request brings a picture to start from."""
        return self.task != python_models.GENERATE

    @property
    def pictures_last(self) -> bool:
        """Whether the preprocessor comes after the conditioner, which needs nothing of it."""
        reads = {python_models.CONTROLNET, python_models.IP_ADAPTER} & set(self.features)
        return bool(reads) and not self.starts_from_picture
