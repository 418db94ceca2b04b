"""Task, features and step count of an ensemble."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from diffusion_contract import python_models
from diffusion_contract.enums import SHALLOW_DENOISERS, Component
from diffusion_contract.spec.acceleration import denoiser_variant

if TYPE_CHECKING:
    from diffusion_contract.spec import Acceleration


@dataclass(frozen=True)
class Tier:
    """What an ensemble is made for.

    Args:
        task: `generate`, `img2img` or `inpaint`.
        features: additional inputs, in the order of `python_models.FEATURES`.
        steps: the step count in the ensemble's name.
        calls: denoiser calls; some schedulers call it more than once a step.
        scheduler: name of its scheduler; None for the tier of the default scheduler and of all schedulers that call
            the denoiser as often.
        is_stochastic: whether one of its schedulers may draw fresh noise in a step.
        previews: denoiser calls after which there is a preview image.
        acceleration: of the pipeline.
        refiner_calls: how many calls at the end are the refiner's.
    """

    task: str
    steps: int
    calls: int
    features: tuple[str, ...] = ()
    scheduler: str | None = None
    is_stochastic: bool = False
    previews: tuple[int, ...] = ()
    acceleration: Acceleration | None = None
    refiner_calls: int = 0

    @property
    def denoisers(self) -> tuple[Component, ...]:
        """What each call is: a variant of the denoiser, or the refiner."""
        base_calls = range(self.calls - self.refiner_calls)
        variants = (denoiser_variant(call, self.calls, self.acceleration) for call in base_calls)
        return (*variants, *(Component.REFINER,) * self.refiner_calls)

    def last_full_call(self, call: int) -> int:
        """The call whose deep features this one may use: the last one before it that computes any."""
        return max(earlier for earlier in range(call) if self.denoisers[earlier] not in SHALLOW_DENOISERS)

    def shallow_calls(self, call: int) -> tuple[Component, ...]:
        """Variants of the calls that use the deep features of a full one."""
        return tuple(takewhile(SHALLOW_DENOISERS.__contains__, self.denoisers[call + 1 :]))

    @property
    def key(self) -> str:
        """Name of its table."""
        return f"{self.task}_{self._tier}"

    @property
    def name(self) -> str:
        """Name of its ensemble."""
        return python_models.ensemble_name(self.task, self.features, self._tier)

    @property
    def json_name(self) -> str:
        """Name of its ensemble for Triton's `generate` endpoint."""
        return python_models.json_ensemble_name(self.task, self.features, self._tier)

    @property
    def _tier(self) -> str:
        return f"{self.steps}_{self.scheduler}" if self.scheduler else str(self.steps)

    @property
    def starts_from_image(self) -> bool:
        """Whether a request brings an image to start from."""
        return self.task != python_models.GENERATE

    @property
    def preprocessor_last(self) -> bool:
        """Whether the preprocessor comes after the conditioner, which needs nothing of it."""
        image_features = {python_models.CONTROLNET, python_models.IP_ADAPTER} & set(self.features)
        return bool(image_features) and not self.starts_from_image
