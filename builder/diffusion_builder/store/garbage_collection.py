"""Garbage collection: delete what no retained artifact was made from or links to.

Retained are the artifacts that the caller names, those that were created or used within the grace time, all that they
refer to, and the last comparisons. An artifact is moved to a staging name before its files are deleted, so that a
kill leaves no half one; and those that refer go before what they refer to.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusion_builder import digests
from diffusion_builder.errors import BadInputError, Reason, StoreError
from diffusion_builder.store import errors, last_used, staging
from diffusion_builder.store.manifest import Artifact, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from diffusion_builder.store.core import Store

TIMING = "timing"
RETAINED_COMPARISONS = 20
_PREFIX = re.compile(r"[0-9a-f]{8,63}")


@dataclass(frozen=True)
class GarbageCollectionOptions:
    """Options of a garbage collection.

    Args:
        keep: digests; the beginning of one (8 digits at least) is enough.
        grace: seconds since an artifact was created or used, within which it is retained.
        dry_run: only report.
        timing: also delete TensorRT's timing caches that no engine which stays was built with.
    """

    keep: tuple[str, ...]
    grace: float
    dry_run: bool = False
    timing: bool = False


@dataclass(frozen=True)
class Entry:
    """A published folder as collection sees it.

    Args:
        kind: folder of the store.
        digest: its name.
        size: bytes.
        references: digests; None when the manifest is damaged.
        last_used: Unix time when it was created or last used.
        cache: name of the timing cache that it was built with, or empty.
    """

    kind: Kind
    digest: str
    size: int
    references: frozenset[str] | None
    last_used: float
    cache: str = ""


@dataclass(frozen=True)
class CollectionResult:
    """Artifacts deleted, or to be deleted in a dry run.

    Args:
        deleted: artifacts.
        retained: how many artifacts stay.
        size: bytes of the deleted artifacts and timing caches.
        stale_staging: folders that killed writers had left.
        timing: names of timing caches.
        missing: digests that should be retained and are not in the store.
    """

    deleted: tuple[Entry, ...]
    retained: int
    size: int
    stale_staging: int
    timing: tuple[str, ...]
    missing: tuple[str, ...]


def collect(
    store: Store, options: GarbageCollectionOptions, on_delete: Callable[[Entry], None] = lambda _entry: None
) -> CollectionResult:
    """Delete what is not retained.

    Args:
        store: the store.
        options: what is retained.
        on_delete: called for each artifact when it is gone.

    Raises:
        BadInputError: a digest to keep is none, or fits several artifacts or none.
        StoreError: a retained manifest is damaged, so that its references are unknown; or not writable.
    """
    now = store.clock()
    try:
        entries = survey(store, now)
        roots, missing = _roots(entries, options.keep)
        roots |= {entry.digest for entry in entries.values() if now - entry.last_used < options.grace}
        retained = reachable(entries, roots)
        retained |= {
            digest for digest, entry in entries.items() if _describes_retained(entry, retained)
        } | _latest_comparisons(entries)
        # Sources are made first and referred to by the others: they go last.
        order = list(Kind)[::-1]
        garbage = sorted(
            (e for d, e in entries.items() if d not in retained), key=lambda e: (order.index(e.kind), e.digest)
        )
        deleted = [entry for entry in garbage if options.dry_run or _delete(store, entry, now, options.grace)]
        for entry in deleted:
            on_delete(entry)
        caches = _timing(store.root, (entries[digest] for digest in retained)) if options.timing else ()
        size = sum(entry.size for entry in deleted) + sum(path.stat().st_size for path in caches)
        stale_staging = 0 if options.dry_run else _tidy(store, caches, entries, now - options.grace)
    except OSError as error:
        raise errors.store_error(error, store.root) from error
    names = tuple(path.name for path in caches)
    return CollectionResult(tuple(deleted), len(entries) - len(deleted), size, stale_staging, names, missing)


def survey(store: Store, now: float) -> Mapping[str, Entry]:
    """Everything that is published, by digest; damaged manifests do not stop it."""
    entries = {}
    for kind, digest in store.names():
        try:
            artifact = store.find(kind, digest)
        except StoreError:
            artifact = None
        used = last_used.last_used(store.root, digest, now)
        folder = store.folder(kind, digest)
        if artifact is not None:
            entries[digest] = _entry(artifact, used)
        elif folder.exists():
            size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
            entries[digest] = Entry(kind, digest, size, None, used)
    return entries


def reachable(entries: Mapping[str, Entry], roots: Collection[str]) -> frozenset[str]:
    """Digests of the roots and of all that they refer to, directly or not.

    Raises:
        StoreError: one of them has no readable manifest.
    """
    reached: set[str] = set()
    pending = list(roots)
    while pending:
        digest = pending.pop()
        entry = entries.get(digest)
        if entry is None or digest in reached:
            continue
        if entry.references is None:
            raise StoreError(
                Reason.ARTIFACT_DAMAGED,
                f"{entry.kind}/{digest} must be retained and its manifest is damaged, so its references are unknown: "
                "nothing was deleted. Delete that folder and build it again, or do not retain it",
            )
        reached.add(digest)
        pending += entry.references
    return frozenset(reached)


def _describes_retained(entry: Entry, retained: Collection[str]) -> bool:
    """Whether it is about something that is retained: a parity result costs minutes and is a few hundred bytes."""
    return (
        entry.kind is Kind.PARITY
        and bool(entry.references)
        and all(name in retained for name in entry.references or ())
    )


def _latest_comparisons(entries: Mapping[str, Entry]) -> frozenset[str]:
    """The newest comparisons, which nothing refers to: evidence for users after a rollout, a few 100 KB each."""
    comparisons = [entry for entry in entries.values() if entry.kind is Kind.COMPARISON]
    newest = sorted(comparisons, key=lambda entry: (-entry.last_used, entry.digest))[:RETAINED_COMPARISONS]
    return frozenset(entry.digest for entry in newest)


def _entry(artifact: Artifact, used: float) -> Entry:
    manifest = artifact.manifest
    extra = manifest.extra
    cache = f"{extra.get('target')}-{extra.get('runtimeVersion')}" if manifest.kind is Kind.ENGINE else ""
    return Entry(
        manifest.kind, manifest.digest, manifest.size, manifest.references(), max(used, manifest.created_at), cache
    )


def _roots(entries: Mapping[str, Entry], keep: Sequence[str]) -> tuple[set[str], tuple[str, ...]]:
    """Full digests of what must be retained, and those among them that are missing."""
    roots = {_resolve(entries, text) for text in keep}
    return roots, tuple(sorted(roots - entries.keys()))


def _resolve(entries: Mapping[str, Entry], text: str) -> str:
    if digests.is_digest(text):
        return text
    if not _PREFIX.fullmatch(text):
        raise BadInputError(
            Reason.INVALID_ARGUMENT,
            f"{text!r} is no digest: 64 lower-case hex digits are expected, or at least the first 8",
        )
    matches = [digest for digest in entries if digest.startswith(text)]
    if len(matches) != 1:
        # Someone who types the beginning of a digest means an artifact that is there: a typing error must not delete.
        raise BadInputError(
            Reason.ARTIFACT_NOT_FOUND,
            f"{len(matches)} artifacts begin with {text}, one is expected: nothing was deleted",
        )
    return matches[0]


def _delete(store: Store, entry: Entry, now: float, grace: float) -> bool:
    """Delete an artifact, unless somebody has used it meanwhile."""
    folder = store.folder(entry.kind, entry.digest)
    away = folder.with_name(staging.name_for(entry.digest, now))
    try:
        folder.rename(away)
    except FileNotFoundError:
        return False
    # Who uses an artifact writes the mark first and looks for the artifact then: see Store.use.
    if last_used.last_used(store.root, entry.digest, now) > max(entry.last_used, now - grace):
        with contextlib.suppress(OSError):
            away.rename(folder)
            return False
    staging.remove(away)
    last_used.remove(store.root, entry.digest)
    return True


def _timing(root: Path, retained: Iterable[Entry]) -> tuple[Path, ...]:
    """Caches that no retained engine was built with."""
    needed = {entry.cache for entry in retained}
    caches = sorted((root / TIMING).glob("*"))
    return tuple(path for path in caches if path.is_file() and path.name not in needed)


def _tidy(store: Store, caches: Iterable[Path], entries: Mapping[str, Entry], before: float) -> int:
    for cache in caches:
        cache.unlink(missing_ok=True)
    for path in (store.root / last_used.FOLDER).glob("*"):
        if path.name not in entries and last_used.last_used(store.root, path.name, store.clock()) < before:
            last_used.remove(store.root, path.name)
    return sum(staging.sweep(store.root / kind, store.clock()) for kind in Kind)
