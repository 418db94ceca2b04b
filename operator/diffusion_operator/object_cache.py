"""Objects as their newest watch events left them: a pass over a settled pipeline reads them here instead of listing.

Nothing is decided for good by what is cached: before a pass acts, it observes again what it acts on.
"""

import json
import math
import re
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from sys import intern
from typing import Any, Protocol

from diffusion_operator import naming
from diffusion_operator.api import KIND
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.kube_client import COLLECTIONS, OPTIONAL, KubeClient, Reference
from diffusion_operator.views.job import needs_pods

DISCOVERY_SECONDS = 30.0
CLAIM_SECONDS = 5.0
"""A claim of somebody else's has no events here; many pipelines share one."""
TERM = re.compile(r"(?P<key>[^,=!\s]+)(=(?P<value>[^,]*)| in \((?P<values>[^)]*)\))?(,|$)")
COMPRESSION = 1
DECODED_JOBS = 256
"""Shared Jobs are read by one pipeline after the other: of so many the latest content stays decoded."""


class Reader(Protocol):
    """What a pass observes with."""

    async def get(self, ref: Reference) -> JsonObject | None:
        """The object, or None when there is none."""

    async def select(self, ref: Reference, selector: str, fields: str = "") -> list[JsonObject]:
        """All objects of the kind and namespace with these labels, and these values of fields."""


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """Which state of which object.

    Attributes:
        version: its resourceVersion: of two states of one object the newer one has the larger number.
    """

    uid: str
    version: int

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "ObjectVersion":
        """Of an object, or of its metadata alone."""
        metadata = body.get("metadata", {})
        return cls(str(metadata.get("uid", "")), version_number(metadata))


def version_number(metadata: Mapping[str, Any]) -> int:
    """The resourceVersion of an object or a list; 0 when there is none."""
    text = str(metadata.get("resourceVersion") or "")
    return int(text) if text.isdecimal() else 0


@dataclass(frozen=True, slots=True)
class _Entry:
    state: ObjectVersion
    labels: Mapping[str, str]
    content: bytes


class ObjectCache:
    """The newest known state of every watched object, compressed, since a fleet has tens of thousands of them.

    Args:
        clock: seconds.

    Attributes:
        unwatched: kinds that have no events here.
        unlisted: kinds that must not be listed either.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.unwatched: frozenset[str] = frozenset()
        self.unlisted: frozenset[str] = frozenset()
        self._clock = clock
        self._trusted_until = -math.inf
        self._entries: dict[Reference, _Entry] = {}
        self._members: dict[tuple[str, str, str], set[Reference]] = defaultdict(set)
        self._job = lru_cache(DECODED_JOBS)(_decode)

    @property
    def is_complete(self) -> bool:
        """Whether it was the same as the API server's objects a short while ago."""
        return self._clock() < self._trusted_until

    def trust(self, seconds: float) -> None:
        """It has been compared with the API server; that counts for so long."""
        self._trusted_until = self._clock() + seconds

    def put(self, ref: Reference, body: Mapping[str, Any]) -> bool:
        """Store the object; false when a newer state of it is stored, as after an event from the past."""
        state, entry = ObjectVersion.of(body), self._entries.get(ref)
        if entry is not None and entry.state.uid == state.uid and entry.state.version > state.version:
            return False
        self._unlink(ref)
        metadata = {key: value for key, value in body.get("metadata", {}).items() if key != "managedFields"}
        text = json.dumps({**body, "metadata": metadata}, separators=(",", ":"))
        # Tens of thousands of objects have the same few labels.
        labels = {intern(key): intern(str(value)) for key, value in (metadata.get("labels") or {}).items()}
        self._entries[ref] = _Entry(state, labels, zlib.compress(text.encode(), COMPRESSION))
        for term in _group_terms(labels):
            self._members[ref.kind, ref.namespace, term].add(ref)
        return True

    def remove(self, ref: Reference, uid: str) -> None:
        """Drop the object; another one of its name stays."""
        entry = self._entries.get(ref)
        if entry is not None and entry.state.uid == uid:
            self._unlink(ref)
            del self._entries[ref]

    def _unlink(self, ref: Reference) -> None:
        entry = self._entries.get(ref)
        for term in _group_terms(entry.labels) if entry is not None else ():
            members = self._members[ref.kind, ref.namespace, term]
            members.discard(ref)
            if not members:
                del self._members[ref.kind, ref.namespace, term]

    def state(self, ref: Reference) -> ObjectVersion | None:
        """Which state of the object is stored."""
        entry = self._entries.get(ref)
        return entry.state if entry is not None else None

    def references(self, kind: str, namespace: str) -> list[Reference]:
        """Everything stored of a kind; an empty namespace means all of them."""
        return [ref for ref in self._entries if ref.kind == kind and namespace in {"", ref.namespace}]

    def get(self, ref: Reference) -> JsonObject | None:
        """The object."""
        entry = self._entries.get(ref)
        return _decode(entry.content) if entry is not None else None

    def select(self, ref: Reference, selector: str) -> list[JsonObject] | None:
        """Objects of one pipeline with these labels, to be read only; None when the selector names no pipeline."""
        terms = selector_terms(selector) or {}
        groups = list(_group_terms({key: ",".join(values) for key, values in terms.items()}))
        if not groups:
            return None
        members = sorted(self._members.get((ref.kind, ref.namespace, groups[0]), ()), key=str)
        entries = map(self._entries.__getitem__, members)
        decode = self._job if ref.kind == "Job" else _decode
        return [decode(entry.content) for entry in entries if _matches(entry.labels, terms)]


def selector_terms(selector: str) -> dict[str, frozenset[str]] | None:
    """Labels that a selector asks for, without values where any will do; None when it asks for something else."""
    terms: dict[str, frozenset[str]] = {}
    end = 0
    while match := TERM.match(selector, end):
        values = match["values"].split(",") if match["values"] else [match["value"]] if match["value"] else []
        terms[match["key"]] = frozenset(values)
        end = match.end()
    return terms if end == len(selector) else None


def _matches(labels: Mapping[str, str], terms: Mapping[str, frozenset[str]]) -> bool:
    return all(key in labels and (not values or labels[key] in values) for key, values in terms.items())


def _group_terms(labels: Mapping[str, str]) -> Iterator[str]:
    """What an object is looked for by: the pipeline that it belongs to, and those that need it too."""
    for key, value in labels.items():
        if key == naming.PIPELINE:
            yield f"{key}={value}"
        elif naming.is_needed_by_label(key):
            yield key


def _decode(content: bytes) -> JsonObject:
    body: JsonObject = json.loads(zlib.decompress(content))
    return body


class CacheReader:
    """Reads objects of some kinds from the cache once it is complete, and everything else from the API server.

    Args:
        client: of the API server.
        cache: of watched objects.
        kinds: that are read from the cache.
        clock: seconds.
    """

    def __init__(
        self,
        client: KubeClient,
        cache: ObjectCache,
        kinds: frozenset[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._cache = cache
        self._kinds = kinds
        self._clock = clock
        self._served: dict[str, tuple[bool, float]] = {}
        self._claims: dict[Reference, tuple[JsonObject, float]] = {}

    async def get(self, ref: Reference) -> JsonObject | None:
        """The object, or None when there is none."""
        cached = self._cache.get(ref) if self._is_cached(ref.kind) else None
        if cached is not None:
            return cached
        # What nobody has labelled, such as a claim of somebody else's, is not watched.
        return await (self._claim(ref) if ref.kind == "PersistentVolumeClaim" else self._client.get(ref))

    async def _claim(self, ref: Reference) -> JsonObject | None:
        body, until = self._claims.get(ref, ({}, 0.0))
        if self._clock() < until:
            return body
        live = await self._client.get(ref)
        self._claims.pop(ref, None)
        if live is not None:
            self._claims[ref] = (live, self._clock() + CLAIM_SECONDS)
        return live

    async def select(self, ref: Reference, selector: str, fields: str = "") -> list[JsonObject]:
        """All objects of the kind and namespace with these labels, and these values of fields."""
        if ref.kind in OPTIONAL and not await self._is_served(COLLECTIONS[ref.kind][0], COLLECTIONS[ref.kind][1]):
            return []
        if ref.kind in self._cache.unlisted:
            return []
        if self._is_cached(ref.kind) and not fields:
            cached = self._cache.select(ref, selector)
            if cached is not None and not (ref.kind == "Job" and any(map(needs_pods, cached))):
                return cached
        return await self._client.select(ref, selector, fields)

    def _is_cached(self, kind: str) -> bool:
        return kind in self._kinds - self._cache.unwatched and self._cache.is_complete

    async def _is_served(self, group: str, plural: str) -> bool:
        """Whether the API server knows an optional kind: asked at most twice a minute, not with every pass."""
        is_served, until = self._served.get(plural, (False, 0.0))
        if self._clock() >= until:
            resources = await self._client.request("GET", group, missing_ok=True) or {}
            is_served = any(item.get("name") == plural for item in resources.get("resources", []))
            self._served[plural] = (is_served, self._clock() + DISCOVERY_SECONDS)
        return is_served


ACTING_KINDS = frozenset(
    {"Job", "PersistentVolumeClaim", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"}
)
"""Kinds that a pass reads from the cache when it acts: writing them twice, or a moment late, does no harm.

Deletions name the version of the Job that was read, a Job is created once under its name, and its result never changes;
as long as one runs all of them are listed.
"""

SETTLED_KINDS = ACTING_KINDS | {KIND, "Deployment", "Service", "Pod"}
"""Kinds that a pass reads from the cache to see whether there is anything to do."""
