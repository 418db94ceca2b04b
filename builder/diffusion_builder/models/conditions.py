"""What the conditioner computes: first states, schedules, noise and scales, and whether a request may be served.

Pure numpy, so that it is tested without Triton.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from . import finish_numbers, guides
from .asked import STRENGTH, UNIT, Asked
from .first_state import Pictures, choose, from_noise, from_picture, repainting
from .noise import Generator
from .plan import ConditionError, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .asked import Array
    from .first_state import Moments, Start
    from .noise import Floats
    from .plan import Plan
    from .schedule import Schedule
    from .sizes import Side

# Those of diffusers' pipelines.
_DEFAULT_STRENGTH = {"img2img": 0.8, "inpaint": 1.0}
_TABLE, _NOISE, _CONTROL = "table_", "noise_", "control_scales_"


def condition(plan: Plan, inputs: Mapping[str, Array], wanted: frozenset[str]) -> Mapping[str, Array]:
    """Answer a request.

    Args:
        plan: the repository.
        inputs: the request's tensors [B, ...].
        wanted: the outputs to compute, exactly one `table_<task>_<steps>[_<scheduler>]` among them.

    Returns:
        The wanted tensors [B, ...].

    Raises:
        ConditionError: something is asked for that is not served.
        InputError: so is something that would be done to the picture when it is there.
    """
    work = _Work(plan, Asked.of(inputs), wanted)
    work.check_finish()
    return {name: np.ascontiguousarray(work.output(name)) for name in sorted(wanted)}


class _Work:
    """One request; what several outputs need is computed once."""

    def __init__(self, plan: Plan, asked: Asked, wanted: frozenset[str]) -> None:
        self._plan, self._asked, self._wanted = plan, asked, wanted
        self._outputs: Mapping[str, Callable[[], Array]] = {
            "levels": lambda: np.stack([chosen.levels for chosen in self._schedules]),
            "state": self._state,
            "model_input": self._model_input,
            "timestep": lambda: np.stack([chosen.levels[0, :1] for chosen in self._schedules]),
            "step_index": lambda: np.zeros((asked.batch, 1), np.int32),
            "guidance": lambda: guides.guidance(asked),
            "guidance_rescale": lambda: guides.guidance_rescale(asked),
            "no_noise": lambda: np.zeros((asked.batch, *self._shape), np.float32),
            "kept": lambda: np.stack([np.stack([start.clean, start.noise]) for start in self._starts]),
            "step_mask": self._step_mask,
            "masked_latent": lambda: np.stack([start.masked for start in self._starts]),
            "text_embeddings_given": lambda: guides.text_embeddings(plan, asked, guides.guidance(asked)),
            "accepted_ids": lambda: asked.inputs["input_ids"],
            "accepted_pixels": lambda: asked.inputs["reference_pixels"],
            "no_image_embeddings": lambda: np.zeros((asked.batch, 2, *plan.image), np.float32),
            "ip_adapter_scale": lambda: guides.ip_adapter_scale(asked, used="no_image_embeddings" not in wanted),
            "no_region": lambda: np.ones((asked.batch, 1, *self._shape[1:]), np.float32),
        }

    def check_finish(self) -> None:
        height, width = (side * self._plan.pixels_per_latent for side in self._shape[1:])
        finish_numbers.check(self._asked.inputs.get, self._asked.batch, width, height)

    def output(self, name: str) -> Array:
        if name.startswith(_TABLE):
            return np.stack([chosen.padded(self._plan.slots) for chosen in self._schedules])
        if name.startswith(_NOISE):
            return self._drawn[int(name.removeprefix(_NOISE))]
        if name.startswith(_CONTROL):
            calls = self._schedules[0].calls
            return guides.control_scales(self._asked, name.removeprefix(_CONTROL), calls)
        return self._outputs[name]()

    @cached_property
    def _target(self) -> Target:
        keys = [name.removeprefix(_TABLE) for name in self._wanted if name.startswith(_TABLE)]
        if len(keys) != 1:
            raise ConditionError(f"an ensemble maps one table, this one maps {len(keys)}: build it again")
        present = {
            "controlnet": any(name.startswith(_CONTROL) for name in self._wanted),
            "ip_adapter": "ip_adapter_scale" in self._wanted and "no_image_embeddings" not in self._wanted,
            "embeddings": "text_embeddings_given" in self._wanted,
        }
        return Target.of(keys[0], tuple(name for name, there in present.items() if there))

    @cached_property
    def _strengths(self) -> Sequence[float]:
        default = _DEFAULT_STRENGTH.get(self._target.task)
        if default is None:
            return [1.0] * self._asked.batch
        return self._asked.numbers("strength", default, STRENGTH)

    @cached_property
    def _schedules(self) -> Sequence[Schedule]:
        names = self._asked.names("scheduler", self._target.scheduler or self._plan.default)
        etas = self._asked.numbers("eta", 0.0, UNIT)
        chosen = [
            choose(self._plan, self._target, name, strength, eta)
            for name, strength, eta in zip(names, self._strengths, etas, strict=True)
        ]
        if any(any(one.draws) for one in chosen) and not any(name.startswith(_NOISE) for name in self._wanted):
            raise ConditionError("eta is not served by this ensemble, whose steps draw no noise: leave it out")
        return chosen

    @cached_property
    def _shape(self) -> tuple[int, int, int]:
        """Of a latent: that of the picture, or what height and width say."""
        for name in ("latent_mean", "masked_mean"):
            given = self._asked.tensor(name)
            if given is not None:
                return self._plan.channels, given.shape[2], given.shape[3]
        height = self._side("height", self._plan.height)
        width = self._side("width", self._plan.width)
        return self._plan.channels, height // self._plan.pixels_per_latent, width // self._plan.pixels_per_latent

    def _side(self, name: str, side: Side) -> int:
        given = self._asked.size(name)
        if given is not None and not side.fits(given):
            raise ConditionError(f"{name} {given} is not served: send {side.served}")
        return side.opt if given is None else given

    @cached_property
    def _generators(self) -> Sequence[Generator]:
        return [Generator(seed) for seed in self._asked.seeds()]

    @cached_property
    def _starts(self) -> Sequence[Start]:
        return [self._start(index) for index in range(self._asked.batch)]

    def _start(self, index: int) -> Start:
        chosen, generator = self._schedules[index], self._generators[index]
        if self._target.task == "generate":
            return from_noise(chosen, generator, self._shape)
        whole, masked = self._moments("latent", index), self._moments("masked", index)
        if self._target.task == "inpaint":
            scratch = self._strengths[index] == 1.0
            pictures = Pictures(whole, masked)
            return repainting(chosen, generator, pictures, made_for_it=self._plan.inpainting, from_scratch=scratch)
        if whole is None:
            raise ConditionError("input_image is missing: send the picture to start from")
        return from_picture(chosen, generator, whole)

    def _moments(self, name: str, index: int) -> Moments | None:
        mean, deviation = self._asked.tensor(f"{name}_mean"), self._asked.tensor(f"{name}_std")
        return None if mean is None or deviation is None else (mean[index], deviation[index])

    @cached_property
    def _drawn(self) -> Sequence[Floats]:
        """Fresh noise [B, C, h, w] of each call, drawn after that of the first state."""
        _ = self._starts
        last = max(int(name.removeprefix(_NOISE)) for name in self._wanted if name.startswith(_NOISE))
        calls = [np.zeros((self._asked.batch, *self._shape), np.float32) for _ in range(last + 1)]
        for index, (chosen, generator) in enumerate(zip(self._schedules, self._generators, strict=True)):
            for noise, draws in zip(calls, chosen.draws, strict=False):
                if draws:
                    noise[index] = generator.normal(self._shape)
        return calls

    def _state(self) -> Floats:
        state = np.zeros((self._asked.batch, self._plan.slots, *self._shape), np.float32)
        for slots, start in zip(state, self._starts, strict=True):
            slots[0] = start.latent
        return state

    def _model_input(self) -> Floats:
        pairs = zip(self._starts, self._schedules, strict=True)
        return np.stack([start.latent * np.float32(chosen.input_scale) for start, chosen in pairs])

    def _step_mask(self) -> Array:
        """1 where the step's latent is taken, 0 where the picture is kept: everywhere 1 unless the step repaints."""
        mask = self._asked.tensor("latent_mask") if self._target.task == "inpaint" else None
        if mask is None or self._plan.inpainting:
            return np.ones((self._asked.batch, 1, *self._shape[1:]), np.float32)
        return mask
