"""Which events say something new: most only repeat what a pipeline, or its neighbours, have just written."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from diffusion_operator import digests, naming
from diffusion_operator.api import KIND

K = TypeVar("K", bound=Hashable)


class News(Generic[K]):
    """Remembers a fingerprint of every object, and whom it concerned.

    Joining a shared Job only adds an owner to it: without this, each pipeline that joins would wake all the others.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, frozenset[K]]] = {}

    def concerned(self, kind: str | None, body: Mapping[str, Any], all_keys: Iterable[K]) -> frozenset[K]:
        """Those whom the event tells something that a pass may act on.

        Args:
            kind: of the event; None for the first listing.
            body: of the object.
            all_keys: everybody whom the object concerns.
        """
        uid, keys = str(body.get("metadata", {}).get("uid", "")), frozenset(all_keys)
        if kind == "DELETED":
            self._seen.pop(uid, None)
            return keys
        found = fingerprint(body)
        before, known = self._seen.get(uid, ("", frozenset[K]()))
        self._seen[uid] = (found, keys)
        return keys if found != before else keys - known


def fingerprint(body: Mapping[str, Any]) -> str:
    """Digest of what a pass looks at."""
    head = body.get("metadata", {})
    if body.get("kind") == KIND:
        # The operator itself writes the status: that it is lost is news, what it says is not.
        has_status = bool(body.get("status", {}).get("conditions"))
        notes = head.get("annotations", {})
        asked = [notes.get(naming.PROMOTE), notes.get(naming.ABORT)]
        parts: list[Any] = [head.get("generation"), head.get("deletionTimestamp"), has_status, asked]
    else:
        labels = {key: value for key, value in head.get("labels", {}).items() if not naming.is_membership(key)}
        parts = [labels, head.get("annotations"), head.get("deletionTimestamp"), body.get("spec"), body.get("status")]
    return digests.of(parts)[:16]
