"""How a new revision gets the traffic; pure: `decision.decide_rollout` is all that there is to decide."""
