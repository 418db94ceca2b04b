"""What is to be served on a target, once its repository is there."""

from typing import Any

from diffusion_contract.spec import DiffusionPipelineSpec, Target
from diffusion_operator.manifests.common import Owner
from diffusion_operator.manifests.deployment import ServingRequest
from diffusion_operator.plan.builds import Builds
from diffusion_operator.plan.observed import claim_name

JsonObject = dict[str, Any]


def serving_request(
    spec: DiffusionPipelineSpec, owner: Owner, target: Target, builds: Builds | None
) -> ServingRequest | None:
    """All that decides the pods; None while something of it is being built."""
    assemble = builds.repository(target.sku) if builds is not None else None
    if assemble is None:
        return None
    longest = max(steps for pipeline in spec.pipelines for steps in pipeline.steps)
    claim = claim_name(spec, owner.name)
    return ServingRequest(target, spec.serving, assemble.digest, claim, longest, _flags(assemble.result))


def _flags(result: JsonObject) -> tuple[str, ...]:
    return tuple(str(flag) for flag in result.get("serverFlags", []) if str(flag).startswith("--"))
