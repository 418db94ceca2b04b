"""How a new revision gets the traffic; pure: `decide_rollout` is all that there is to decide."""

from diffusion_operator.rollout.decision import decide_rollout
from diffusion_operator.rollout.experiment import VariantDecision, VariantState, decide_variant
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
    "decide_rollout",
    "decide_variant",
    "strategy_of",
]
