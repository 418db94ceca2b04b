"""One ensemble from its models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_builder.repository.graph import Ensemble, EnsembleStep, Port, TritonModel
from diffusion_builder.repository.unroll.epilogue import final_image, preview
from diffusion_builder.repository.unroll.loop import loop
from diffusion_builder.repository.unroll.models import port
from diffusion_builder.repository.unroll.prologue import prologue
from diffusion_contract import python_models

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from diffusion_builder.repository.unroll.models import Models
    from diffusion_builder.repository.unroll.tier import Tier


def ensemble(tier: Tier, models: Models) -> Ensemble:
    """Unroll one tier.

    Args:
        tier: task, features, steps and denoiser calls.
        models: the repository's models.
    """
    previews = [step for calls in tier.previews for step in preview(calls, tier, models)]
    steps = (*prologue(tier, models), *loop(tier, models), *final_image(tier, models), *previews)
    preview_outputs = (port(python_models.preview(calls), models.facts) for calls in tier.previews)
    outputs = (*models.postprocessor.outputs, *preview_outputs)
    return Ensemble(tier.name, tuple(_inputs(models, steps)), outputs, steps)


def json_ensemble(tier: Tier, unrolled: Ensemble) -> Ensemble:
    """The ensemble of a tier for clients that speak JSON only: text in, text out.

    Triton's `generate` endpoint returns all outputs of a model, and bytes of a file are not valid in JSON.
    """
    model = TritonModel(unrolled.name, unrolled.inputs, unrolled.outputs)
    names = {python_models.ENCODED_IMAGE_BASE64.name, python_models.FLAGGED.name}
    outputs = tuple(output for output in unrolled.outputs if output.name in names)
    step = EnsembleStep(
        model,
        {port.name: port.name for port in unrolled.inputs},
        {port.name: port.name for port in outputs},
    )
    return Ensemble(tier.json_name, unrolled.inputs, outputs, (step,))


def _inputs(models: Models, steps: Sequence[EnsembleStep]) -> Iterator[Port]:
    """Inputs of a request that the steps read."""
    step_inputs = {tensor for step in steps for tensor in step.inputs.values()}
    for tensor in python_models.request_inputs(tuple(models.control_nets)):
        if tensor.name in step_inputs:
            yield port(tensor, models.facts)
