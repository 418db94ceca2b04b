"""The denoising loop as a caller of models writes it; who calls and how is left open.

The benchmark uses it over HTTP from a client, and inside Triton (`model.py`), where it is copied beside the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
Tensors = Mapping[str, Array]
# Model, its inputs, the names of the outputs that are wanted.
Call = Callable[[str, Tensors, Sequence[str]], Tensors]
_CONSTANT = ("levels", "image_latent_and_noise", "step_mask", "guidance")
_MOVING = ("state", "model_input", "timestep", "step_index")


def draw(call: Call, request: Tensors, steps: int) -> Array:
    """Make the models' calls of one request in the order of the ensemble; returns `encoded_image` [1, 1].

    Args:
        call: runs a model.
        request: `prompt`, `seed` and `guidance_scale`.
        steps: 4 or 20, what the conditioner has a table for.
    """
    tokens = call("1_tokenizer", {"prompt": request["prompt"]}, ["input_ids"])
    text = call("2_text_encoder", tokens, ["text_embeddings"])
    table, noises = f"table_generate_{steps}", [f"noise_{index}" for index in range(steps)]
    conditioner_inputs = {name: array for name, array in request.items() if name != "prompt"}
    plan = call("4_conditioner", {**conditioner_inputs, **tokens}, [table, *_CONSTANT, *_MOVING, *noises])
    constant = {
        "table": plan[table], "levels": plan["levels"],
        "image_latent_and_noise": plan["image_latent_and_noise"], "latent_mask": plan["step_mask"],
    }  # fmt: skip
    moving: Tensors = {name: plan[name] for name in _MOVING}
    for noise in noises[:-1]:
        output = _denoise(call, moving, text, plan)
        inputs = {**_own(moving), **output, **constant, "noise": plan[noise]}
        moved = call("6_scheduler_step", inputs, [f"next_{name}" for name in _MOVING])
        moving = {name: moved[f"next_{name}"] for name in _MOVING}
    output = _denoise(call, moving, text, plan)
    inputs = {**_own(moving), **output, **constant, "noise": plan[noises[-1]]}
    decoded = call("7_vae_decoder", call("6_scheduler_step", inputs, ["latent"]), ["decoded_image"])
    return call("8_postprocessor", decoded, ["encoded_image"])["encoded_image"]


def _denoise(call: Call, moving: Tensors, text: Tensors, plan: Tensors) -> Tensors:
    inputs = {"model_input": moving["model_input"], "timestep": moving["timestep"]}
    return call("5_denoiser", {**inputs, **text, "guidance": plan["guidance"]}, ["model_output"])


def _own(moving: Tensors) -> Tensors:
    """What the scheduler step reads of its own last outputs."""
    return {"state": moving["state"], "step_index": moving["step_index"]}
