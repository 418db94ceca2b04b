"""The fixtures of one real cluster, and the order of its tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.cluster.fixtures import cluster, hub_kube, images, namespace, operator, shared_namespace

if TYPE_CHECKING:
    import pytest

LAST = "test_rights.py"

__all__ = ["cluster", "hub_kube", "images", "namespace", "operator", "shared_namespace"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What looks back at the whole run comes last; the order is otherwise as it was."""
    items.sort(key=lambda item: item.path.name == LAST)
