"""Whether a live object has the fields of a manifest; pure."""

from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity


def contains(live: Any, manifest: Any) -> bool:  # noqa: ANN401 - any JSON value
    """True when every field of the manifest is in the live object; the server may have added more fields."""
    if isinstance(manifest, dict):
        return isinstance(live, dict) and all(
            # The server leaves out what is empty, zero or false.
            contains(live.get(key), value) or (live.get(key) is None and not value)
            for key, value in manifest.items()
        )
    if isinstance(manifest, list):
        same_length = isinstance(live, list) and len(live) == len(manifest)
        return same_length and all(map(contains, live, manifest))
    return bool(live == manifest) or _is_same_quantity(live, manifest)


def _is_same_quantity(live: Any, manifest: Any) -> bool:  # noqa: ANN401 - any JSON value
    """The server writes quantities in its own form: `1000m` becomes `1`."""
    quantity = _quantity(live)
    return quantity is not None and quantity == _quantity(manifest)


def _quantity(value: Any) -> Decimal | None:  # noqa: ANN401 - any JSON value
    try:
        return Decimal(parse_quantity(value))  # type: ignore[no-untyped-call]
    except ValueError:
        return None
