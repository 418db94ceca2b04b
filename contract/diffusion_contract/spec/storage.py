"""The claim that holds the store."""

from typing import Annotated, Literal

from pydantic import Field

from diffusion_contract.base import (
    ApiModel,
    ObjectName,
    Rule,
    transition,
)
from diffusion_contract.resources import Quantity, amount
from diffusion_contract.spec.garbage_collection import DigestPrefix, GarbageCollection

AccessMode = Literal["ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]

UNCHANGED_CLAIM = "!has(self.size) || !has(oldSelf.size)"
CLAIM_ADVICE = "create a claim of your own and name it in claimName"


def _immutable_field(field: str) -> Rule:
    """A field of a claim that cannot change once the claim exists."""
    both = f"has(self.{field}) == has(oldSelf.{field})"
    same = f"({both} && (!has(self.{field}) || self.{field} == oldSelf.{field}))"
    return transition(f"{UNCHANGED_CLAIM} || {same}", f"{field} of an existing claim cannot change: {CLAIM_ADVICE}")


class Storage(ApiModel):
    """The claim that holds the store: an existing one, or one that is created (and deleted) with the pipeline."""

    rules = (
        Rule(
            "has(self.claimName) != has(self.size)",
            "storage needs exactly one of claimName (a claim that exists) and size (a claim to create)",
            lambda self: (self.claim_name is None) != (self.size is None),
        ),
        Rule(
            "!has(self.claimName) || (!has(self.storageClassName) && !has(self.accessModes))",
            "storageClassName and accessModes belong to size: a claim that exists has its own",
            lambda self: self.claim_name is None or (self.storage_class_name, self.access_modes) == (None, None),
        ),
        Rule(
            "!has(self.size) || quantity(string(self.size)).isGreaterThan(quantity('0'))",
            "a claim needs some size, such as 20Gi",
            lambda self: self.size is None or amount(self.size) > 0,
            ".size",
        ),
        Rule(
            "!has(self.accessModes) || !('ReadWriteOncePod' in self.accessModes)",
            "with ReadWriteOncePod a single pod could use the store, and Jobs and servers are several pods: use "
            "ReadWriteMany, or ReadWriteOnce to keep them on one node",
            lambda self: "ReadWriteOncePod" not in (self.access_modes or ()),
            ".accessModes",
        ),
        transition(
            f"{UNCHANGED_CLAIM} || quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0",
            "size can grow but never shrink: Kubernetes cannot make a volume smaller",
        ),
        _immutable_field("storageClassName"),
        _immutable_field("accessModes"),
    )

    claim_name: ObjectName | None = Field(default=None, description="An existing claim in the pipeline's namespace.")
    size: Quantity | None = Field(default=None, description="Size of a claim that is created with the pipeline.")
    storage_class_name: ObjectName | None = Field(
        default=None, description="Class of the created claim; defaults to the cluster's default class."
    )
    gc: GarbageCollection | None = Field(
        default=None,
        description="Garbage collection: deletes artifacts that no pipeline needs; nothing is deleted without it.",
    )
    retain: Annotated[list[DigestPrefix], Field(max_length=256)] | None = Field(
        default=None,
        description="Artifacts that garbage collection retains in any case: digests, or their first 8 digits or more.",
    )
    access_modes: Annotated[list[AccessMode], Field(min_length=1, max_length=3)] | None = Field(
        default=None,
        description="Access modes of the created claim; defaults to [ReadWriteMany], since Jobs and "
        "serving pods on several nodes use it. With [ReadWriteOnce] all of them run on one node.",
    )
