"""What the conditioner computes: the first state of a request, its tables, and whether it may be served.

Pure numpy, so that it is tested without Triton.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .noise import standard_normal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Floats = NDArray[np.float32]
_PIXEL_MULTIPLE = 8
DEFAULT_SEED = 0
DEFAULT_GUIDANCE = 7.5


class ConditionError(Exception):
    """The request asks for something that is not served; the message says what to send."""


@dataclass(frozen=True)
class Side:
    """Smallest, default and largest height or width in pixels."""

    min: int
    opt: int
    max: int

    def check(self, name: str, value: int) -> int:
        """Return the value when it can be served.

        Raises:
            ConditionError: out of range or not a multiple of 8.
        """
        if not self.min <= value <= self.max or value % _PIXEL_MULTIPLE:
            raise ConditionError(
                f"{name} {value} is not served: send a multiple of {_PIXEL_MULTIPLE} "
                f"from {self.min} to {self.max} pixels"
            )
        return value


@dataclass(frozen=True)
class Tier:
    """A tier's schedule: table [rows, S+1, S+1] and timesteps [rows], padded; scales of the first state."""

    table: Floats
    timesteps: Floats
    initial_scale: float
    input_scale: float


@dataclass(frozen=True)
class Plan:
    """The contents of `schedules.json`."""

    channels: int
    pixels_per_latent: int
    height: Side
    width: Side
    tiers: Mapping[int, Tier]

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read the file that the builder has written."""
        body = json.loads(text)
        tiers = {int(steps): _tier(tier, body["rows"]) for steps, tier in body["tiers"].items()}
        height, width = Side(**body["height"]), Side(**body["width"])
        return cls(body["channels"], body["pixelsPerLatent"], height, width, tiers)


def _tier(tier: Mapping[str, Any], rows: int) -> Tier:
    table, timesteps = np.array(tier["table"], np.float32), np.array(tier["timesteps"], np.float32)
    padding = rows - len(table)
    return Tier(
        np.pad(table, ((0, padding), (0, 0), (0, 0))),
        np.pad(timesteps, (0, padding)),
        tier["initialScale"],
        tier["inputScale"],
    )


@dataclass(frozen=True)
class Asked:
    """What a request of B samples asks for; None where it says nothing."""

    batch: int
    seeds: Sequence[int] | None = None
    guidance: Sequence[float] | None = None
    heights: Sequence[int] | None = None
    widths: Sequence[int] | None = None


def noise(plan: Plan, asked: Asked) -> Floats:
    """Unit noise [B, C, h, w], each sample from its own seed.

    Raises:
        ConditionError: a size is not served, or the samples of one request differ in size.
    """
    height = _size("height", asked.heights, plan.height)
    width = _size("width", asked.widths, plan.width)
    seeds = asked.seeds if asked.seeds is not None else [DEFAULT_SEED] * asked.batch
    _count("seed", seeds, asked.batch)
    shape = (plan.channels, height // plan.pixels_per_latent, width // plan.pixels_per_latent)
    return np.stack([standard_normal(seed, shape) for seed in seeds])


def guidance(asked: Asked) -> Floats:
    """Guidance [B, 1]; at most 1 means none, which is the same as 1 (so does diffusers).

    Raises:
        ConditionError: a value is not finite.
    """
    values = asked.guidance if asked.guidance is not None else [DEFAULT_GUIDANCE] * asked.batch
    _count("guidance_scale", values, asked.batch)
    for value in values:
        if not math.isfinite(value):
            raise ConditionError(f"guidance_scale {value} is not a finite number: send {DEFAULT_GUIDANCE} or the like")
    return np.maximum(np.array(values, np.float32), 1.0).reshape(-1, 1)


def tiered(tier: Tier, unit: Floats) -> Mapping[str, Floats]:
    """The tensors that depend on the tier.

    Args:
        tier: the schedule.
        unit: unit noise [B, C, h, w].

    Returns:
        state [B, S, C, h, w], model_input [B, C, h, w], timestep [B, 1], and table and timesteps per sample.
    """
    batch = len(unit)
    slots = tier.table.shape[1] - 1
    state = np.zeros((batch, slots, *unit.shape[1:]), np.float32)
    state[:, 0] = unit * np.float32(tier.initial_scale)
    return {
        "state": state,
        "model_input": state[:, 0] * np.float32(tier.input_scale),
        "timestep": np.full((batch, 1), tier.timesteps[0], np.float32),
        "table": np.repeat(tier.table[None], batch, axis=0),
        "timesteps": np.repeat(tier.timesteps[None], batch, axis=0),
    }


def _size(name: str, values: Sequence[int] | None, side: Side) -> int:
    if values is None:
        return side.opt
    if len(set(values)) != 1:
        raise ConditionError(f"{name} differs within one request ({list(values)}): send one request per size")
    return side.check(name, values[0])


def _count(name: str, values: Sequence[object], batch: int) -> None:
    if len(values) != batch:
        raise ConditionError(f"{name} has {len(values)} values for {batch} prompts: send one each")
