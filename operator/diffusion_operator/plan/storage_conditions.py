"""What is wrong with the claims of a pipeline, and advice where Kubernetes' words about a volume lack it."""

from dataclasses import replace

from diffusion_operator.conditions import ConditionType, ConditionUpdate, Reason
from diffusion_operator.manifests.store_node import node_conflicts
from diffusion_operator.plan.observed import ObservedPipeline, claim_name
from diffusion_operator.settings import GpuNodeLabel
from diffusion_operator.views.pod_problem import PodProblem
from diffusion_operator.views.storage import ClaimView

ON_OTHER_NODE = ("volume node affinity", "didn't match pod affinity rules", "volume's node affinity")
UNBOUND = ("unbound immediate PersistentVolumeClaims", "provisioning failed for PVC", "binding volumes")
SELECTED_NODE = "volume.kubernetes.io/selected-node"
SHARED_CLAIM = "a claim with ReadWriteMany"


def storage_problem(observed: ObservedPipeline, label: GpuNodeLabel) -> ConditionUpdate | None:
    """What is wrong with the claims, or None.

    Args:
        observed: the pipeline.
        label: of GPU nodes.
    """
    for name in observed.claims.missing:
        return _missing_claim(observed, "spec.model: persistentVolumeClaim.claimName", name)
    name, claim = claim_name(observed.spec, observed.owner.name), observed.claims.store
    if claim is None and observed.spec.storage.claim_name is not None:
        return _missing_claim(observed, "spec.storage.claimName", name)
    if claim is None or claim.terminating:
        return _update(Reason.WAITING_FOR_STORAGE, f"Claim {name} is being created.")
    if claim.phase == "Lost":
        text = f"The volume of claim {name} is lost: delete the claim; it is recreated and its artifacts are rebuilt."
        return _update(Reason.STORAGE_NOT_FOUND, text)
    obstacle = _sharing_obstacle(observed, claim, label)
    return _update(Reason.STORAGE_NOT_SHARED, obstacle) if obstacle else None


def with_storage_advice(observed: ObservedPipeline, problem: PodProblem) -> PodProblem:
    """The problem, with what to do where the store's claim is the cause: neither scheduler nor kubelet says it."""
    claim = observed.claims.store
    if claim is None:
        return problem
    if claim.phase == "Pending" and any(words in problem.message for words in UNBOUND):
        return replace(problem, message=f"{_unbound_text(observed, claim)} {problem.message}")
    unmounted = "waits for its volumes" in problem.message and "Secret " not in problem.message
    on_other_node = unmounted or any(words in problem.message for words in ON_OTHER_NODE)
    if "ReadWriteMany" in claim.access_modes or not on_other_node:
        return problem
    if problem.reason == Reason.WAITING_FOR_GPU:
        return replace(problem, message=f"{problem.message} {_one_node_text(claim)}")
    text = f"{_one_node_text(claim)} {problem.message}"
    return replace(problem, reason=Reason.STORAGE_NOT_SHARED, message=text)


def _sharing_obstacle(observed: ObservedPipeline, claim: ClaimView, label: GpuNodeLabel) -> str:
    """Why the pods could never share the claim; empty when they can."""
    modes = claim.access_modes
    if "ReadWriteMany" in modes:
        return ""
    if "ReadWriteOncePod" in modes:
        return (
            f"Claim {claim.name} is ReadWriteOncePod: a single pod can use it, and Jobs and servers are several. Use "
            f"{SHARED_CLAIM}, or with ReadWriteOnce to keep them on one node."
        )
    conflicts = "; ".join(node_conflicts(observed.spec.targets, label))
    if not conflicts:
        return ""
    return (
        f"Claim {claim.name} is {', '.join(modes)}, so all Jobs and servers have to run on one node, and no node is "
        f"right for all targets: {conflicts}. Use {SHARED_CLAIM}, or a pipeline with a claim of its own for each of "
        "these targets."
    )


def _one_node_text(claim: ClaimView) -> str:
    node = claim.annotations.get(SELECTED_NODE)
    place = f" (its volume was made for node {node})" if node else ""
    return (
        f"Claim {claim.name} is {', '.join(claim.access_modes)}{place}, so all its pods run on one node, and that node "
        "has no place for this one: enlarge or free the node, take fewer replicas or targets, or use "
        f"{SHARED_CLAIM}."
    )


def _unbound_text(observed: ObservedPipeline, claim: ClaimView) -> str:
    storage_class = observed.spec.storage.storage_class_name
    of_class = f" of class {storage_class}" if storage_class else ""
    text = f"Claim {claim.name} asks for {', '.join(claim.access_modes)} and has no volume{of_class} yet"
    advice = "check that its class exists and has a provisioner."
    if "ReadWriteMany" in claim.access_modes:
        advice = (
            "block storage cannot be mounted on several nodes. Name a class of a shared file system in "
            "spec.storage.storageClassName, or, for one node with all Jobs and servers, create the pipeline anew with "
            "spec.storage.accessModes: [ReadWriteOnce]."
        )
    return f"{text}: {advice} kubectl describe pvc {claim.name} says more."


def _missing_claim(observed: ObservedPipeline, field: str, name: str) -> ConditionUpdate:
    namespace = observed.owner.namespace
    text = f"{field}: claim {name} does not exist in namespace {namespace}: create it, or name another."
    return _update(Reason.STORAGE_NOT_FOUND, text)


def _update(reason: Reason, text: str) -> ConditionUpdate:
    return ConditionUpdate(ConditionType.ENGINES_READY, reason, text)
