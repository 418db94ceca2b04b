"""What is asked of both servers, and how different their answers may be."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

MAX_PROMPTS = 16
# From measurements with the demo checkpoint: docs/analysis.md.
DEFAULT_COLOR_SHIFT = 0.25
_Revision = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=63)]
_Ensemble = Annotated[str, Field(pattern=r"^(generate|img2img|inpaint)_[0-9]+_pipeline$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class GoldenPrompt(_Frozen):
    """One image. Without steps it is asked of the first ensemble that both servers have."""

    prompt: str = Field(max_length=2000)
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    steps: int | None = Field(default=None, ge=1, le=64)


DEFAULT_PROMPTS = (
    GoldenPrompt(prompt="a red circle on a blue background", seed=1),
    GoldenPrompt(prompt="a large yellow square on a green background", seed=2),
    GoldenPrompt(prompt="a small green star on a yellow background", seed=10),
    GoldenPrompt(prompt="a large white triangle on a black background", seed=11),
    GoldenPrompt(prompt="a small red ring on a cyan background", seed=12),
    GoldenPrompt(prompt="a large purple cross on a white background", seed=13),
)


class CompareSpec(_Frozen):
    """One comparison.

    Args:
        stable: name of the stable revision; servers of equal names answer equally.
        canary: name of the other one.
        ensembles: that the canary serves, the ones to prefer first; `<task>_<steps>_pipeline`.
        prompts: 1 to 16.
        height: pixels; both servers' default where it is not given.
        width: same.
        min_psnr: dB; only where the canary should draw the same.
        min_ssim: same, at most 1.
        max_color_shift: 0 (equal) to 1.
    """

    stable: _Revision
    canary: _Revision
    ensembles: tuple[_Ensemble, ...] = Field(min_length=1, max_length=64)
    prompts: tuple[GoldenPrompt, ...] = Field(default=DEFAULT_PROMPTS, min_length=1, max_length=MAX_PROMPTS)
    height: int | None = Field(default=None, ge=16, le=4096)
    width: int | None = Field(default=None, ge=16, le=4096)
    min_psnr: float | None = Field(default=None, ge=0, le=100, alias="minPSNR")
    min_ssim: float | None = Field(default=None, ge=-1, le=1, alias="minSSIM")
    max_color_shift: float = Field(default=DEFAULT_COLOR_SHIFT, ge=0, le=1)
