"""Targets: the nodes that serve a pipeline."""

from typing import Annotated

from pydantic import Field

from diffusion_contract.base import (
    ApiModel,
    ExtraLabels,
    LabelKey,
    LabelMap,
    LabelValue,
    ObjectName,
    Rule,
    TargetName,
    Tolerations,
)
from diffusion_contract.enums import Runtime
from diffusion_contract.resources import RESOURCE_NAME, Resources
from diffusion_contract.skus import CPU, GPU_RESOURCE, PRODUCT_LABEL, SUBDOMAIN, sku
from diffusion_contract.spec.autoscaling import Autoscaling


class Gpu(ApiModel):
    """The GPUs of one serving pod; engines are compiled on one GPU of the same product."""

    rules = (
        Rule(
            "!has(self.resourceName) || !has(self.resourceClaimTemplateName)",
            "use either resourceName (a device plugin's resource) or resourceClaimTemplateName (dynamic "
            "resource allocation), not both",
            lambda self: self.resource_name is None or self.resource_claim_template_name is None,
        ),
        Rule(
            "!has(self.resourceClaimTemplateName) || self.count == 1",
            "with resourceClaimTemplateName the claim template says how many GPUs a pod gets: leave count out",
            lambda self: self.resource_claim_template_name is None or self.count == 1,
            ".count",
        ),
    )

    product: LabelValue = Field(
        description="GPU product as GPU feature discovery names it (node label nvidia.com/gpu.product), such as "
        "NVIDIA-L4; engines are compiled for it."
    )
    product_label: LabelKey | None = Field(
        default=None,
        description="Node label that chooses the nodes, such as cloud.google.com/gke-accelerator. Defaults to the "
        "chart's gpu.productLabel, and that to nvidia.com/gpu.product.",
    )
    product_label_value: LabelValue | None = Field(
        default=None,
        description="Value of that label, such as nvidia-l4. Defaults to the chart's gpu.productLabelValues for this "
        "product, and without one to the product.",
    )
    count: Annotated[int, Field(ge=1, le=16)] = Field(default=1, description="GPUs of each serving pod.")
    resource_name: Annotated[str, Field(max_length=253, pattern=rf"^{SUBDOMAIN}/{RESOURCE_NAME}$")] | None = Field(
        default=None,
        description="Resource of the device plugin; defaults to nvidia.com/gpu. A MIG slice is "
        "nvidia.com/mig-<profile> on nodes of the mixed strategy.",
    )
    resource_claim_template_name: ObjectName | None = Field(
        default=None,
        description="ResourceClaimTemplate in the pipeline's namespace, instead of a device plugin's resource. It has "
        "to choose a GPU of this product; the nodes are then chosen by the claim.",
    )
    runtime_class_name: ObjectName | None = Field(
        default=None, description="RuntimeClass of the pods that get a GPU, where the cluster needs one."
    )

    @property
    def resource(self) -> str:
        """Resource of the device plugin."""
        return self.resource_name or GPU_RESOURCE

    @property
    def sku(self) -> str:
        """What engines are compiled for: the product, and the slice that the resource's name says."""
        return sku(self.product, self.resource)


class Target(ApiModel):
    """One kind of node that the pipeline is served on, with a Deployment of its own."""

    rules = (
        Rule(
            "!has(self.gpu) || !has(self.nodeSelector) || "
            f"!((has(self.gpu.productLabel) ? self.gpu.productLabel : '{PRODUCT_LABEL}') in self.nodeSelector)",
            f"the node label {PRODUCT_LABEL} (or gpu.productLabel) is chosen by gpu.product: "
            "leave it out of nodeSelector",
            lambda self: (
                self.gpu is None or (self.gpu.product_label or PRODUCT_LABEL) not in (self.node_selector or {})
            ),
            ".nodeSelector",
        ),
    )

    name: TargetName = Field(description="Unique within the pipeline; part of the names of its objects.")
    gpu: Gpu | None = Field(default=None, description="GPUs of each serving pod; without it the target is a CPU.")
    replicas: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="Number of serving pods; ignored with autoscaling."
    )
    autoscaling: Autoscaling | None = Field(default=None, description="Scales the serving pods with the load.")
    resources: Resources = Field(
        default=Resources(requests={"cpu": "500m", "memory": "1Gi"}),
        description="Requests and limits of each serving pod, besides its GPUs.",
    )
    node_selector: LabelMap | None = Field(default=None, description="Labels that the nodes must have.")
    tolerations: Tolerations | None = Field(
        default=None, description="Taints that the pods tolerate; nvidia.com/gpu is tolerated where there is a gpu."
    )
    priority_class_name: ObjectName | None = Field(default=None, description="PriorityClass of the serving pods.")
    labels: ExtraLabels | None = Field(
        default=None, description="Additional labels of the Deployment and its pods, such as a queue's name for Kueue."
    )

    @property
    def sku(self) -> str:
        """GPU product, or `cpu`."""
        return self.gpu.sku if self.gpu is not None else CPU

    @property
    def runtime(self) -> Runtime:
        """What executes its engines."""
        return Runtime.TENSORRT if self.gpu is not None else Runtime.ONNXRUNTIME
