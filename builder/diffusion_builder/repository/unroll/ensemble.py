"""One ensemble from its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_builder.repository import python_models as python
from diffusion_builder.repository.graph import Ensemble, Port, Step
from diffusion_builder.repository.unroll.first import first
from diffusion_builder.repository.unroll.loop import loop
from diffusion_builder.repository.unroll.models import port
from diffusion_builder.repository.unroll.pictures import preview, result

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from diffusion_builder.repository.unroll.models import Models
    from diffusion_builder.repository.unroll.tier import Tier


def ensemble(tier: Tier, parts: Models) -> Ensemble:
    """Unroll one tier.

    Args:
        tier: task, features, steps and denoiser calls.
        parts: the repository's models.
    """
    previews = [step for calls in tier.previews for step in preview(calls, tier, parts)]
    steps = (*first(tier, parts), *loop(tier, parts), *result(tier, parts), *previews)
    outputs = (python.IMAGE, python.ENCODED_IMAGE, *(python.preview(calls) for calls in tier.previews))
    return Ensemble(
        tier.name,
        tuple(_inputs(parts, steps)),
        tuple(port(tensor, parts.facts) for tensor in outputs),
        steps,
    )


def _inputs(parts: Models, steps: Sequence[Step]) -> Iterator[Port]:
    """What the steps read of all that a request can bring."""
    read = {tensor for step in steps for tensor in step.inputs.values()}
    for tensor in python.request_inputs(tuple(parts.control_nets)):
        if tensor.name in read:
            yield port(tensor, parts.facts)
