"""Affinity of pods to nodes, and to other pods."""

from typing import Self

from pydantic import Field

from diffusion_contract.base import ApiModel, OpenObject


class Affinity(ApiModel):
    """Affinity, as in a pod."""

    node_affinity: OpenObject | None = Field(default=None, description="Nodes, by their labels.")
    pod_affinity: OpenObject | None = Field(default=None, description="Nodes, by pods that they should share.")
    pod_anti_affinity: OpenObject | None = Field(default=None, description="Nodes, by pods that they should avoid.")

    def merged(self, affinity: Self | None) -> Self:
        """This one, where the other one says nothing; a kind of affinity is taken as a whole."""
        changes = {} if affinity is None else {name: value for name, value in affinity if value is not None}
        return self.model_copy(update=changes)
