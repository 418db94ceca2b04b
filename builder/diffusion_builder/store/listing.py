"""Rows of `store ls`, one per artifact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusion_builder.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from diffusion_builder.store.core import Store
    from diffusion_builder.store.manifest import Manifest

HEADINGS = ("KIND", "DIGEST", "COMPONENT", "SIZE", "AGE", "REFERENCED BY")
_DIGITS = 12
_MAX_LISTED_REFERRERS = 3
_UNITS = (("d", 86400), ("h", 3600), ("m", 60))
_KIBI = 1024


@dataclass(frozen=True)
class Row:
    """One artifact, for display.

    Args:
        cells: as in HEADINGS.
        size: bytes, for a sum.
    """

    cells: Sequence[str]
    size: int


def rows(store: Store) -> tuple[Row, ...]:
    """All artifacts by kind and digest; a damaged manifest is shown as such."""
    manifests: dict[tuple[str, str], Manifest | None] = {}
    for kind, digest in store.names():
        try:
            artifact = store.find(kind, digest)
        except StoreError:
            manifests[str(kind), digest] = None
        else:
            if artifact is not None:
                manifests[str(kind), digest] = artifact.manifest
    referrers = _referrers(manifest for manifest in manifests.values() if manifest)
    now = store.clock()
    return tuple(
        _row(manifest, referrers.get(digest, ()), now)
        if manifest
        else Row((kind, digest[:_DIGITS], "DAMAGED", "-", "-", "-"), 0)
        for (kind, digest), manifest in manifests.items()
    )


def table(rows: Sequence[Row]) -> str:
    """Columns as wide as their widest cell; sizes are right-aligned."""
    lines = [HEADINGS, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    right = {HEADINGS.index("SIZE"), HEADINGS.index("AGE")}
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def bytes_text(size: int) -> str:
    """A size for display, such as 3.4 GiB."""
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= _KIBI and len(units) > 1:
        value /= _KIBI
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def _referrers(manifests: Iterable[Manifest]) -> Mapping[str, Sequence[str]]:
    referrers: dict[str, list[str]] = {}
    for manifest in manifests:
        for digest in manifest.references():
            referrers.setdefault(digest, []).append(manifest.digest[:_DIGITS])
    return referrers


def _row(manifest: Manifest, referrers: Sequence[str], now: float) -> Row:
    omitted = len(referrers) - _MAX_LISTED_REFERRERS
    listing = " ".join(sorted(referrers)[:_MAX_LISTED_REFERRERS]) + (f" +{omitted}" if omitted > 0 else "")
    cells = (
        str(manifest.kind), manifest.digest[:_DIGITS], _description(manifest), bytes_text(manifest.size),
        _age(now - manifest.created_at), listing or "-",
    )  # fmt: skip
    return Row(cells, manifest.size)


def _description(manifest: Manifest) -> str:
    """What it is: a component, ensembles, or the parts of a source."""
    extra = manifest.extra
    return str(extra.get("component") or ",".join(extra.get("ensembles") or sorted(extra.get("subfolders", ()))) or "-")


def _age(seconds: float) -> str:
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"
