"""Where it is served."""

from typing import Annotated

from pydantic import Field

from diffusion_operator.api.autoscaling import Autoscaling
from diffusion_operator.api.base import ApiModel, LabelMap, Resources, TargetName, Toleration


class Target(ApiModel):
    """One kind of node that the pipeline is served on, with a Deployment of its own."""

    name: TargetName = Field(description="Unique within the pipeline; part of the names of what is created.")
    replicas: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="Serving pods; does not count with autoscaling."
    )
    autoscaling: Autoscaling | None = Field(default=None, description="Let the load decide the number of pods.")
    resources: Resources = Field(
        default=Resources(requests={"cpu": "500m", "memory": "1Gi"}), description="Of each serving pod."
    )
    node_selector: LabelMap | None = Field(default=None, description="Labels that the nodes must have.")
    tolerations: Annotated[list[Toleration], Field(max_length=16)] | None = Field(
        default=None, description="Taints that the pods tolerate."
    )
