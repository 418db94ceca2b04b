"""What the images of two revisions are compared by: the JSON that the stage `compare` is given."""

from typing import Annotated

from pydantic import Field

from diffusion_contract.base import ObjectName
from diffusion_contract.python_models import TASKS
from diffusion_contract.spec.rollout import GoldenPrompt, ImageCriteria

_Ensemble = Annotated[str, Field(pattern=rf"^({'|'.join(TASKS)})_[0-9]+_pipeline$")]
_PixelSize = Annotated[int, Field(ge=16, le=4096)]

# For pipelines that name none.
DEFAULT_PROMPTS = (
    GoldenPrompt(prompt="a red circle on a blue background", seed=1),
    GoldenPrompt(prompt="a large yellow square on a green background", seed=2),
    GoldenPrompt(prompt="a small green star on a yellow background", seed=10),
    GoldenPrompt(prompt="a large white triangle on a black background", seed=11),
    GoldenPrompt(prompt="a small red ring on a cyan background", seed=12),
    GoldenPrompt(prompt="a large purple cross on a white background", seed=13),
)


class CompareSpec(ImageCriteria):
    """One comparison.

    Attributes:
        stable: name of the stable revision; servers of equal names answer equally.
        canary: name of the other one.
        ensembles: of the canary, the ones to prefer first; `<task>_<steps>_pipeline`.
        height: pixels; both servers' default where it is not given.
        width: same.
    """

    stable: ObjectName
    canary: ObjectName
    ensembles: Annotated[tuple[_Ensemble, ...], Field(min_length=1, max_length=64)]
    height: _PixelSize | None = None
    width: _PixelSize | None = None

    @property
    def golden_prompts(self) -> tuple[GoldenPrompt, ...]:
        """The prompts, or the built-in ones."""
        return tuple(self.prompts or DEFAULT_PROMPTS)
