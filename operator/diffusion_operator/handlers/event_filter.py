"""Which events carry a change: most only repeat what a pipeline, or its neighbours, have just written."""

from collections.abc import Iterable, Mapping
from typing import Any

from diffusion_operator import digests, naming
from diffusion_operator.api import KIND
from diffusion_operator.reconcile import PipelineKey


class EventFilter:
    """Remembers a fingerprint of every object, and the pipelines that it affected.

    Joining a shared Job only adds an owner to it: without this, each pipeline that joins would wake all the others.
    """

    def __init__(self) -> None:
        self._fingerprints: dict[str, tuple[str, frozenset[PipelineKey]]] = {}

    def affected_keys(
        self, kind: str | None, body: Mapping[str, Any], all_keys: Iterable[PipelineKey]
    ) -> frozenset[PipelineKey]:
        """Pipelines for which the event has a change that a reconcile may act on.

        Args:
            kind: of the event; None for the first listing.
            body: of the object.
            all_keys: pipelines that the object belongs to.
        """
        uid, keys = str(body.get("metadata", {}).get("uid", "")), frozenset(all_keys)
        if kind == "DELETED":
            self._fingerprints.pop(uid, None)
            return keys
        present = fingerprint(body)
        before, known_keys = self._fingerprints.get(uid, ("", frozenset[PipelineKey]()))
        self._fingerprints[uid] = (present, keys)
        return keys if present != before else keys - known_keys


def fingerprint(body: Mapping[str, Any]) -> str:
    """Digest of what a reconcile reads."""
    head = body.get("metadata", {})
    if body.get("kind") == KIND:
        # The operator itself writes the status: its loss is a change, its content is not.
        has_status = bool(body.get("status", {}).get("conditions"))
        annotations = head.get("annotations", {})
        requests = [annotations.get(naming.PROMOTE), annotations.get(naming.ABORT)]
        parts: list[Any] = [head.get("generation"), head.get("deletionTimestamp"), has_status, requests]
    else:
        labels = {key: value for key, value in head.get("labels", {}).items() if not naming.is_needed_by_label(key)}
        parts = [labels, head.get("annotations"), head.get("deletionTimestamp"), body.get("spec"), body.get("status")]
    return digests.json_digest(parts)[:16]
