"""The next step of a rollout, whatever its strategy."""

from collections.abc import Mapping

from diffusion_operator.rollout import canary, replacement, rolling
from diffusion_operator.rollout.state import RolloutDecision, RolloutObservation, Strategy


def decide_rollout(strategy: Strategy, observation: RolloutObservation) -> Mapping[str, RolloutDecision]:
    """The next step of each target. Executing it in part, or twice, is safe: the next pass continues from there."""
    if strategy.is_canary:
        return canary.decide(strategy, observation)
    if strategy.surge == 0:
        return {name: replacement.decide(state, strategy) for name, state in observation.targets.items()}
    return {name: rolling.decide(state, strategy.history) for name, state in observation.targets.items()}
