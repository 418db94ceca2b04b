"""How a new revision gets the traffic; pure: `next_step` is all that there is to decide."""

from diffusion_operator.rollout.decision import next_step
from diffusion_operator.rollout.experiment import VariantDecision, VariantState, next_variant
from diffusion_operator.rollout.progress import RolloutProgress
from diffusion_operator.rollout.state import (
    RevisionState,
    RolloutDecision,
    RolloutObservation,
    RolloutState,
    Strategy,
    strategy_of,
)

__all__ = [
    "RevisionState",
    "RolloutDecision",
    "RolloutObservation",
    "RolloutProgress",
    "RolloutState",
    "Strategy",
    "VariantDecision",
    "VariantState",
    "next_step",
    "next_variant",
    "strategy_of",
]
