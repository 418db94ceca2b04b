"""Claims, and the pipelines of a namespace that may share one."""

from dataclasses import dataclass
from typing import Self

from diffusion_operator import naming
from diffusion_operator.api import KIND
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.views.base import ObjectView, base_fields


@dataclass(frozen=True)
class ClaimView(ObjectView):
    """A PersistentVolumeClaim.

    Attributes:
        phase: Pending, Bound or Lost.
    """

    phase: str
    access_modes: tuple[str, ...]

    @classmethod
    def parse(cls, manifest: JsonObject) -> Self:
        """The claim as the API server returned it."""
        return cls(
            **base_fields("PersistentVolumeClaim", manifest),
            phase=manifest.get("status", {}).get("phase", ""),
            access_modes=tuple(manifest.get("spec", {}).get("accessModes", ["ReadWriteMany"])),
        )


@dataclass(frozen=True)
class PipelineView(ObjectView):
    """Another pipeline of the namespace, as far as the garbage collection of a store asks; its spec may be invalid.

    Attributes:
        claim: that holds its store.
        retained_digests: artifacts that its spec retains.
        collects: its spec asks for garbage collection, and it is neither suspended nor deleted.
    """

    claim: str
    retained_digests: frozenset[str]
    collects: bool

    @classmethod
    def parse(cls, manifest: JsonObject) -> Self:
        """The pipeline as the API server returned it."""
        fields, spec = base_fields(KIND, manifest), manifest["spec"]
        storage = spec.get("storage", {})
        return cls(
            **fields,
            claim=storage.get("claimName") or naming.claim_name(fields["name"]),
            retained_digests=frozenset(map(str, storage.get("retain") or ())),
            collects=storage.get("gc") is not None and not (fields["terminating"] or spec.get("suspend", False)),
        )
