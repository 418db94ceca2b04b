"""Everything that a plan is made from, derived once a pass: of the pipeline, and of each target."""

from collections.abc import Mapping
from dataclasses import dataclass

from diffusion_contract.spec import Experiment, Target
from diffusion_operator.analysis.verdict import Verdict
from diffusion_operator.conditions import ConditionUpdate
from diffusion_operator.manifests.deployment import ServingRevision
from diffusion_operator.manifests.store_node import store_node
from diffusion_operator.plan.build_graph import BuildGraph, build_graph
from diffusion_operator.plan.build_jobs import StoreClaim
from diffusion_operator.plan.build_steps import BuildStep
from diffusion_operator.plan.observed import ObservedPipeline, claim_name
from diffusion_operator.plan.storage_conditions import storage_problem
from diffusion_operator.rollout.state import RevisionState, RolloutState
from diffusion_operator.settings import Settings
from diffusion_operator.views.pod_problem import PodProblem
from diffusion_operator.views.serving import DeploymentView


@dataclass(frozen=True)
class PlanContext:
    """One pipeline.

    Attributes:
        storage_problem: what is wrong with the claims.
        store: None while it cannot be used.
        builds: None while there is no store.
    """

    observed: ObservedPipeline
    settings: Settings
    storage_problem: ConditionUpdate | None
    store: StoreClaim | None
    builds: BuildGraph | None

    @property
    def experiment(self) -> Experiment | None:
        """Of the spec."""
        rollout = self.observed.spec.rollout
        return rollout.experiment if rollout is not None else None


@dataclass(frozen=True)
class TargetContext:
    """One target: all that is known before its next step is decided.

    Attributes:
        deployments: of all revisions, oldest first, without those that are being deleted.
        revisions: the same as the rollout reads them.
        spec_revision: that the spec describes; None while it is being built.
        state: for the rollout: without the revisions of variants.
        route_weights: live percentages of all revisions but the stable one behind a Gateway.
        variant_revisions: by variant; those that are built.
        variant_by_revision: variants by their revisions; the desired and the stable one are no variant's.
        comparison: Job that compares the candidate's images with the stable revision's; None before it is due.
        verdict: of the phase that the candidate is in; None when there is nothing to decide.
        problem: what keeps the newest pod of the desired revision, else of the stable one, from being ready.
    """

    target: Target
    deployments: tuple[DeploymentView, ...]
    revisions: tuple[RevisionState, ...]
    spec_revision: ServingRevision | None
    state: RolloutState
    route_weights: Mapping[str, int]
    variant_revisions: Mapping[str, ServingRevision]
    variant_by_revision: Mapping[str, str]
    comparison: BuildStep | None
    verdict: Verdict | None
    problem: PodProblem | None

    @property
    def name(self) -> str:
        """Of the target."""
        return self.target.name


def plan_context(observed: ObservedPipeline, settings: Settings) -> PlanContext:
    """What the plan of a pipeline is made from."""
    problem = storage_problem(observed, settings.gpu_label)
    store = _store(observed, settings) if problem is None else None
    if store is None:
        return PlanContext(observed, settings, problem, None, None)
    jobs = {job.name: job for job in observed.jobs}
    return PlanContext(observed, settings, problem, store, build_graph(observed.spec, store, settings, jobs))


def _store(observed: ObservedPipeline, settings: Settings) -> StoreClaim | None:
    claim = observed.claims.store
    if claim is None:
        return None
    name = claim_name(observed.spec, observed.owner.name)
    node = store_node(name, claim.access_modes, observed.spec.targets, settings.gpu_label)
    return StoreClaim(name, claim.uid, node)
