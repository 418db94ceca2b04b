"""What stands beside a target's Deployments: a disruption budget, and an autoscaler where one is wanted."""

from collections.abc import Iterator

from diffusion_contract.spec import Target
from diffusion_operator.manifests import autoscaler, pdb
from diffusion_operator.plan.actions import Action, Apply, remove
from diffusion_operator.plan.observed import Observed

KINDS = ("PodDisruptionBudget", "HorizontalPodAutoscaler", "ScaledObject")
AUTOSCALERS = KINDS[1:]


def actions(observed: Observed, target: Target, traffic: str | None) -> Iterator[Action]:
    """Budget and autoscaler of a target.

    Args:
        observed: what was seen.
        target: of the spec.
        traffic: revision that has the traffic; None before there is one.
    """
    if traffic is None:
        return
    yield Apply(pdb.budget(observed.owner, target.name))
    # While suspended nobody may start pods again.
    wanted = None if observed.spec.suspend else target.autoscaling
    for kind in AUTOSCALERS:
        for item in observed.of_target(observed.policies.get(kind, ()), target.name):
            if wanted is None or autoscaler.kind_of(wanted) != kind:
                yield remove(kind, item)
    if wanted is not None:
        yield Apply(autoscaler.autoscaler(observed.owner, target.name, traffic, wanted))
