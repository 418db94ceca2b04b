"""How a new revision gets the traffic: `next_step(strategy, observation)` is pure and is all there is to decide."""

from collections.abc import Mapping

from diffusion_operator.rollout import canary, rolling
from diffusion_operator.rollout.experiment import VariantState, VariantStep, next_variant
from diffusion_operator.rollout.state import (
    Note,
    Observation,
    RevisionState,
    RolloutState,
    RolloutStep,
    Strategy,
    strategy_of,
)

__all__ = [
    "Note",
    "Observation",
    "RevisionState",
    "RolloutState",
    "RolloutStep",
    "Strategy",
    "VariantState",
    "VariantStep",
    "next_step",
    "next_variant",
    "strategy_of",
]


def next_step(strategy: Strategy, observation: Observation) -> Mapping[str, RolloutStep]:
    """What to do now with each target. Doing only a part of it, or twice, is safe: the next look goes on from there."""
    if strategy.canary:
        return canary.steps(strategy, observation)
    return {name: rolling.step(state, strategy.history) for name, state in observation.targets.items()}
