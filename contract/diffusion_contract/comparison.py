"""What the images of two revisions are compared by: the JSON that the stage `compare` is given."""

import json
from typing import Annotated

from pydantic import Field

from diffusion_contract.base import JsonObject, ObjectName
from diffusion_contract.python_models import TASKS, ensemble_name
from diffusion_contract.spec.pipeline import DiffusionPipelineSpec
from diffusion_contract.spec.rollout import GoldenPrompt, ImageCriteria, Quality

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
        ensembles: of the canary, the ones to prefer first, `<task>_<steps>_pipeline`; the stage needs at least one.
        height: pixels; both servers' default where it is not given.
        width: same.
    """

    stable: ObjectName
    canary: ObjectName
    ensembles: Annotated[tuple[_Ensemble, ...], Field(max_length=64)]
    height: _PixelSize | None = None
    width: _PixelSize | None = None

    @property
    def golden_prompts(self) -> tuple[GoldenPrompt, ...]:
        """The prompts, or the built-in ones."""
        return tuple(self.prompts or DEFAULT_PROMPTS)

    def document(self) -> JsonObject:
        """As JSON, without what is not given."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def text(self) -> str:
        """As canonical JSON text."""
        return json.dumps(self.document(), sort_keys=True, separators=(",", ":"))


def comparison(spec: DiffusionPipelineSpec, quality: Quality, stable: str, canary: str) -> CompareSpec:
    """The comparison of two revisions of a pipeline.

    Args:
        spec: of the pipeline.
        quality: its criteria.
        stable: name of the stable revision.
        canary: of the other one.
    """
    return CompareSpec(
        stable=stable,
        canary=canary,
        ensembles=_comparable_ensembles(spec),
        height=spec.shapes.height.opt,
        width=spec.shapes.width.opt,
        **quality.model_dump(exclude={"scorer"}),
    )


def _comparable_ensembles(spec: DiffusionPipelineSpec) -> tuple[str, ...]:
    """Ensembles that need nothing but texts and an image: text to image first, then by steps, the most first.

    With few steps the colors of sound models differ, too.
    """
    tiers = {(TASKS.index(item.task), -steps) for item in spec.pipelines if not item.features for steps in item.steps}
    return tuple(ensemble_name(TASKS[task], (), str(-steps)) for task, steps in sorted(tiers))
