"""The variants of an experiment on every target: what they are, how far they are, what comes next."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from diffusion_contract.spec import Experiment, Target, Variant, applied
from diffusion_operator import naming
from diffusion_operator.manifests import deployment as deployments
from diffusion_operator.manifests import service
from diffusion_operator.manifests.deployment import ServingRequest
from diffusion_operator.manifests.service import Share
from diffusion_operator.plan import routes
from diffusion_operator.plan.actions import Action, Apply, Scale
from diffusion_operator.plan.builds import Builds
from diffusion_operator.plan.observed import Observed
from diffusion_operator.plan.pods import Trouble
from diffusion_operator.plan.served import serving_request
from diffusion_operator.rollout import RevisionState, RolloutState, RolloutStep, VariantState, VariantStep, next_variant
from diffusion_operator.settings import Settings

ALL_PERCENT = 100


@dataclass(frozen=True)
class VariantPlan:
    """One variant on one target.

    Attributes:
        request: what its pods are; None while it is being built, or when it is what somebody else is already.
        twin: who serves the same revision, so that there is nothing to compare; empty when nobody does.
        trouble: what keeps its pods from being ready.
        peers: its revisions on all targets; empty when there is one target, or not all are built.
        builds: all that it is made of; None before there is a store.
    """

    variant: Variant
    state: VariantState
    step: VariantStep
    request: ServingRequest | None
    twin: str
    trouble: Trouble | None
    peers: Mapping[str, str]
    builds: Builds | None

    @property
    def share(self) -> Share:
        """For the routes."""
        return Share(self.variant.name, self.step.traffic, self.step.weight, self.variant.weight)

    @property
    def complete(self) -> bool:
        """Whether it has all of its share, and nothing of an earlier revision is left."""
        alone = all(item.name == self.state.desired for item in self.state.revisions)
        return alone and self.step.traffic == self.state.desired and self.step.weight == self.variant.weight


def experiment_of(observed: Observed) -> Experiment | None:
    """What the spec asks for."""
    return observed.spec.rollout.experiment if observed.spec.rollout is not None else None


@dataclass(frozen=True)
class Candidates:
    """What the variants are to be.

    Attributes:
        requests: by variant and target; holds what is built.
        revisions: of the requests.
    """

    requests: Mapping[tuple[str, str], ServingRequest]
    revisions: Mapping[tuple[str, str], str]

    def of_target(self, target: str) -> frozenset[str]:
        """Revisions of all variants on the target."""
        return frozenset(revision for (_, its), revision in self.revisions.items() if its == target)


def candidates(observed: Observed, builds: Builds | None, settings: Settings) -> Candidates:
    """What the variants are to be, as far as it is built."""
    experiment, requests = experiment_of(observed), {}
    for variant in experiment.variants if experiment is not None else ():
        spec = applied(variant, observed.spec)
        its = builds.variants.get(variant.name) if builds is not None else None
        for target in spec.targets:
            found = serving_request(spec, observed.owner, target, its)
            if found is not None:
                requests[variant.name, target.name] = found
    revisions = {key: deployments.revision(item, observed.owner, settings) for key, item in requests.items()}
    return Candidates(requests, revisions)


def belonging(observed: Observed, target: str, wanted: Candidates, taken: frozenset[str | None]) -> dict[str, str]:
    """Variant of every revision on the target that is one's; what is or is to be stable is nobody's.

    What has served before and is no variant any more is left to the history.
    """
    experiment = experiment_of(observed)
    names = [item.name for item in experiment.variants] if experiment is not None else []
    found: dict[str, str] = {}
    for item in observed.of_target(observed.deployments, target):
        said, revision = item["metadata"].get("annotations", {}), str(item["metadata"]["labels"][naming.REVISION])
        if said.get(naming.VARIANT) in names and naming.ROLLOUT not in said:
            found[revision] = said[naming.VARIANT]
    for name in reversed(names):
        revision = wanted.revisions.get((name, target), "")
        if revision:
            found[revision] = name
    return {revision: name for revision, name in found.items() if revision not in taken}


@dataclass(frozen=True)
class Ground:
    """What the variants stand on.

    Attributes:
        states: of the targets, without the variants' revisions.
        steps: of the targets.
        owners: variant of each revision, by target.
        revisions: all Deployments, by target.
    """

    states: Mapping[str, RolloutState]
    steps: Mapping[str, RolloutStep]
    owners: Mapping[str, Mapping[str, str]]
    revisions: Mapping[str, tuple[RevisionState, ...]]


def plans(
    observed: Observed, wanted: Candidates, ground: Ground, builds: Builds | None
) -> dict[str, tuple[VariantPlan, ...]]:
    """The next step of every variant, by target, in the order of the spec."""
    experiment = experiment_of(observed)
    planned = [
        _planned(observed, variant, wanted, ground, builds)
        for variant in (experiment.variants if experiment is not None else ())
    ]
    return {target.name: tuple(item[target.name] for item in planned) for target in observed.spec.targets}


def _planned(
    observed: Observed, variant: Variant, wanted: Candidates, ground: Ground, builds: Builds | None
) -> dict[str, VariantPlan]:
    """One variant, by target."""
    states = {target.name: _state(observed, target, variant, wanted, ground) for target in observed.spec.targets}
    steps, peers = next_variant(variant.weight, states), _peers(states)
    return {
        name: VariantPlan(
            variant=variant,
            state=state,
            step=steps[name],
            request=wanted.requests.get((variant.name, name)) if state.desired is not None else None,
            twin=_twin(variant.name, wanted.revisions.get((variant.name, name)), ground, name),
            trouble=observed.serving_trouble(name, state.desired) if state.desired is not None else None,
            peers=peers,
            builds=builds.variants.get(variant.name) if builds is not None else None,
        )
        for name, state in states.items()
    }


def actions(observed: Observed, target: Target, items: tuple[VariantPlan, ...], settings: Settings) -> Iterator[Action]:
    """Deployments and Services of the variants on a target; what goes is removed with the rest, after the routes."""
    owner = observed.owner
    for item in items:
        pods = item.step.replicas.get(item.state.desired or "")
        if item.request is not None and item.state.desired is not None and pods is not None:
            body = deployments.deployment(item.request, owner, settings, item.peers)
            body["metadata"]["annotations"][naming.VARIANT] = item.variant.name
            yield Apply(body, initial={"replicas": pods})
            yield Apply(service.for_revision(owner, target.name, item.state.desired))


def scales(observed: Observed, target: Target, items: tuple[VariantPlan, ...]) -> Iterator[Action]:
    """Pods of the variants; no autoscaler changes them."""
    for item in items:
        for revision, replicas in item.step.replicas.items():
            live = item.state.find(revision)
            if live is not None and live.replicas != replicas:
                yield Scale(naming.revision(observed.owner.name, target.name, revision), replicas)


def _state(observed: Observed, target: Target, variant: Variant, wanted: Candidates, ground: Ground) -> VariantState:
    name, stable = target.name, ground.states[target.name]
    owners = ground.owners[name]
    mine = {revision for revision, owner in owners.items() if owner == variant.name}
    desired = wanted.revisions.get((variant.name, name))
    live = routes.weights(observed, name, stable.stable)
    return VariantState(
        desired=desired if desired in mine else None,
        revisions=tuple(item for item in ground.revisions[name] if item.name in mine),
        weights={revision: weight for revision, weight in live.items() if revision in mine},
        pods=_pods(target, stable, variant.weight, _given(observed)),
        startable=stable.stable is not None and not stable.is_lost,
        suspended=observed.spec.suspend,
        held=ground.steps[name].weight > 0,
    )


def _pods(target: Target, stable: RolloutState, weight: int, given: int) -> int:
    """As many as the share needs of the pods that all requests would need; an autoscaler has only the stable part."""
    full, most = stable.replicas * weight, target.replicas
    whole = ALL_PERCENT
    if target.autoscaling is not None:
        whole, most = ALL_PERCENT - given, target.autoscaling.max_replicas
    return max(1, min(-(-full // whole), most))


def _given(observed: Observed) -> int:
    """Percentage of all variants."""
    experiment = experiment_of(observed)
    return sum(item.weight for item in experiment.variants) if experiment is not None else 0


def _peers(states: Mapping[str, VariantState]) -> dict[str, str]:
    known = {name: state.desired for name, state in states.items() if state.desired is not None}
    return known if len(known) == len(states) > 1 else {}


def _twin(name: str, revision: str | None, ground: Ground, target: str) -> str:
    if revision is None:
        return ""
    owner = ground.owners[target].get(revision, "stable")
    return owner if owner != name else ""
