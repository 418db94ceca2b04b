"""Which events say something new: most only repeat what a pipeline, or its neighbours, have just written."""

from collections.abc import Mapping
from typing import Any

from diffusion_operator import digests, naming
from diffusion_operator.api import KIND


class News:
    """Remembers a fingerprint of every object.

    Joining a shared Job only adds an owner to it: without this, each pipeline that joins would wake all the others.
    """

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def is_new(self, kind: str | None, body: Mapping[str, Any]) -> bool:
        """True when the event says something that a pass may act on.

        Args:
            kind: of the event; None for the first listing.
            body: of the object.
        """
        uid = str(body.get("metadata", {}).get("uid", ""))
        if kind == "DELETED":
            self._seen.pop(uid, None)
            return True
        found = fingerprint(body)
        before = self._seen.get(uid)
        self._seen[uid] = found
        return found != before


def fingerprint(body: Mapping[str, Any]) -> str:
    """Digest of what a pass looks at."""
    head = body.get("metadata", {})
    if body.get("kind") == KIND:
        # Its status is written by the operator itself; what somebody else does to it is put right by the resync.
        parts: list[Any] = [head.get("generation"), head.get("deletionTimestamp")]
    else:
        labels = {key: value for key, value in head.get("labels", {}).items() if not naming.is_membership(key)}
        parts = [labels, head.get("annotations"), head.get("deletionTimestamp"), body.get("spec"), body.get("status")]
    return digests.of(parts)[:16]
