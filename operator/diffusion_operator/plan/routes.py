"""Routes of a pipeline behind a Gateway: what they are to say, and what they say now."""

from collections.abc import Iterator, Mapping

from diffusion_operator.manifests import route
from diffusion_operator.manifests.route import Part
from diffusion_operator.manifests.service import Split
from diffusion_operator.plan.actions import Action, Apply, remove
from diffusion_operator.plan.observed import Observed
from diffusion_operator.rollout import RolloutState


def weights(observed: Observed, target: str, stable: str | None) -> dict[str, int]:
    """Live percentages of revisions other than the stable one; the larger one where the routes differ."""
    found: dict[str, int] = {}
    for kind in route.KINDS:
        live = observed.find(kind, observed.owner.name)
        for revision, weight in route.weights(live or {}, observed.owner, target).items():
            if revision != stable:
                found[revision] = max(weight, found.get(revision, 0))
    return found


def actions(observed: Observed, states: Mapping[str, RolloutState], splits: Mapping[str, Split]) -> Iterator[Action]:
    """Bring the routes to the splits; without a Gateway there are none."""
    rollout = observed.spec.rollout
    wanted = rollout is not None and rollout.traffic.gateway is not None
    for kind in route.KINDS:
        for item in observed.policies.get(kind, ()):
            if not wanted and "deletionTimestamp" not in item["metadata"]:
                yield remove(kind, item)
    if rollout is None or not splits:
        return
    alone = len(splits) == 1
    parts = {name: Part(split, 1 if alone else max(1, states[name].replicas)) for name, split in splits.items()}
    user_header = rollout.experiment.header.name if rollout.experiment is not None else None
    for body in route.routes(observed.owner, rollout.traffic, parts, user_header):
        yield Apply(body)
