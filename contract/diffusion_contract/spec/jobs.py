"""`spec.jobs`: where all Jobs of a pipeline run, and what they are called to others; the chart's defaults, too."""

from typing import Self, TypeVar

from pydantic import Field

from diffusion_contract.base import (
    Annotations,
    ApiModel,
    ExtraLabels,
    LabelMap,
    ObjectName,
    Tolerations,
)
from diffusion_contract.resources import Resources, amount, is_extended
from diffusion_contract.spec.affinity import Affinity
from diffusion_contract.spec.pod_template import JobPodTemplate

Value = TypeVar("Value")


class Jobs(ApiModel):
    """Placement and metadata of every Job: fetch, export, compile, assemble, parity, compare and garbage collection."""

    node_selector: LabelMap | None = Field(
        default=None,
        description="Labels that the nodes must have, such as kubernetes.io/arch. A compile Job has its target's value "
        "where both name a label.",
    )
    tolerations: Tolerations | None = Field(
        default=None, description="Taints that the pods tolerate; a compile Job also has the target's tolerations."
    )
    affinity: Affinity | None = Field(default=None, description="Affinity of the pods.")
    priority_class_name: ObjectName | None = Field(
        default=None, description="PriorityClass of the pods, unless engines.priorityClassName is set."
    )
    labels: ExtraLabels | None = Field(
        default=None, description="Additional labels of the Jobs and their pods; engines.labels win."
    )
    annotations: Annotations | None = Field(default=None, description="Annotations of the Jobs and their pods.")
    resources: Resources | None = Field(
        default=None,
        description="Resources of the Jobs that fetch, assemble, compare and collect garbage; a resource that is not "
        "named here keeps its default. Other Jobs have engines.resources.",
    )

    pod_template: JobPodTemplate | None = Field(
        default=None,
        description="Anything else that is added to the pods: a strategic merge patch, applied after the chart's.",
    )

    def merged(self, jobs: Self | None) -> Self:
        """These, with what the others say in addition or instead.

        Maps are merged by key, tolerations are joined, and anything else is replaced, the podTemplate too.
        """
        if jobs is None:
            return self
        return self.model_copy(
            update=_present(jobs)
            | {
                "node_selector": _joined(self.node_selector, jobs.node_selector),
                "tolerations": [*dict.fromkeys([*(self.tolerations or ()), *(jobs.tolerations or ())])] or None,
                "affinity": self.affinity.merged(jobs.affinity) if self.affinity is not None else jobs.affinity,
                "labels": _joined(self.labels, jobs.labels),
                "annotations": _joined(self.annotations, jobs.annotations),
                "resources": merged_resources(self.resources or Resources(), jobs.resources),
            }
        )


def merged_resources(defaults: Resources, resources: Resources | None) -> Resources:
    """The defaults, with the amounts that the resources name instead; a default gives way to what contradicts it."""
    if resources is None:
        return defaults
    requests = _joined(defaults.requests, resources.requests) or {}
    limits = _joined(defaults.limits, resources.limits) or {}
    for name in [name for name in requests if name in limits and not is_extended(name)]:
        if amount(requests[name]) > amount(limits[name]):
            if name in (resources.limits or {}):
                requests[name] = limits[name]
            else:
                limits[name] = requests[name]
    # Both were read by the rules; together they may have more entries than one person may write.
    return Resources.model_construct(requests=requests or None, limits=limits or None)


def _joined(defaults: dict[str, Value] | None, entries: dict[str, Value] | None) -> dict[str, Value] | None:
    return {**(defaults or {}), **(entries or {})} or None


def _present(model: ApiModel) -> dict[str, object]:
    """Fields that are not None."""
    return {name: value for name, value in model if value is not None}
