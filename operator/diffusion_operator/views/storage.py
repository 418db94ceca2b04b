"""Claims, and the pipelines of a namespace that may share one."""

from dataclasses import dataclass
from typing import Any, Self

from diffusion_operator import naming
from diffusion_operator.api import KIND
from diffusion_operator.json_objects import JsonObject, as_object, as_text
from diffusion_operator.views.base import ObjectView, base_fields


@dataclass(frozen=True)
class ClaimView(ObjectView):
    """A PersistentVolumeClaim.

    Attributes:
        phase: Pending, Bound or Lost.
        access_modes: of its volume once it is bound, else those that it asks for.
    """

    phase: str
    access_modes: tuple[str, ...]

    @classmethod
    def parse(cls, manifest: JsonObject) -> Self:
        """The claim as the API server returned it."""
        return cls(
            **base_fields("PersistentVolumeClaim", manifest),
            phase=as_text(as_object(manifest.get("status")).get("phase")),
            access_modes=_texts(as_object(manifest.get("status")).get("accessModes"))
            or _texts(as_object(manifest.get("spec")).get("accessModes"))
            or ("ReadWriteMany",),
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
        fields, spec = base_fields(KIND, manifest), as_object(manifest.get("spec"))
        storage = as_object(spec.get("storage"))
        return cls(
            **fields,
            claim=as_text(storage.get("claimName")) or naming.claim_name(fields["name"]),
            retained_digests=frozenset(_texts(storage.get("retain"))),
            collects=storage.get("gc") is not None and not (fields["terminating"] or spec.get("suspend", False)),
        )


def _texts(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - any JSON value
    return tuple(map(as_text, value)) if isinstance(value, list) else ()
