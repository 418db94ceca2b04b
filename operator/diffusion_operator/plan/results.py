"""The results of an experiment, side by side, as the status shows them."""

from diffusion_operator.analysis import Window
from diffusion_operator.api.status import VariantStatus
from diffusion_operator.plan.observed import Observed
from diffusion_operator.plan.serving import TargetPlan
from diffusion_operator.plan.variants import VariantPlan
from diffusion_operator.rollout import RevisionState

DIGITS = 6


def side_by_side(observed: Observed, plan: TargetPlan) -> list[VariantStatus] | None:
    """The stable revision and every variant; None without an experiment."""
    if not plan.variants or plan.split is None:
        return None
    stable, rest = plan.step.traffic, plan.split.shares.get(plan.split.stable, 0)
    found = [_status(observed, plan, "stable", plan.state.find(stable), rest)]
    return found + [_variant(observed, plan, item) for item in plan.variants]


def _variant(observed: Observed, plan: TargetPlan, item: VariantPlan) -> VariantStatus:
    name, state = item.variant.name, item.state
    shown = state.find(item.step.traffic) or state.find(state.desired)
    if shown is None:
        return VariantStatus(name=name, revision=state.desired)
    return _status(observed, plan, name, shown, item.step.weight)


def _status(observed: Observed, plan: TargetPlan, name: str, shown: RevisionState | None, weight: int) -> VariantStatus:
    if shown is None:
        return VariantStatus(name=name, weight=weight)
    window = observed.windows.get((plan.target.name, shown.name), Window())
    total = window.total
    return VariantStatus(
        name=name,
        revision=shown.name,
        weight=weight,
        replicas=shown.replicas,
        ready_replicas=shown.ready,
        requests=round(window.requests),
        error_ratio=_rounded(window.failures / window.requests if window.requests else None),
        p50_seconds=_rounded(total.p50),
        p95_seconds=_rounded(total.p95),
        step_seconds=_rounded(window.step_seconds),
        mean_batch=_rounded(window.mean_batch),
    )


def _rounded(value: float | None) -> float | None:
    return round(value, DIGITS) if value is not None else None
