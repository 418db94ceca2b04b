"""The fixtures of one real cluster, and the order of its tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

from tests.support.cluster.fixtures import (
    ahead,
    built,
    cluster,
    hub_kube,
    images,
    namespace,
    namespaces,
    operator,
    shared_namespace,
)

# After those that build, while the rest is built ahead; what looks back at all of it is the last.
LAST = ("test_canary.py", "test_slice.py", "test_rights.py")
DEVCLUSTER = "devcluster"
WITHOUT_CLUSTER = {
    "test_admission.py",
    "test_api_server.py",
    "test_canary_api.py",
    "test_delivery.py",
    "test_gpu_targets.py",
    "test_release_charts.py",
}

__all__ = [
    "ahead",
    "built",
    "cluster",
    "hub_kube",
    "images",
    "namespace",
    "namespaces",
    "operator",
    "shared_namespace",
]


class TwoHalves(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Of two processes one has the cluster, and the other what needs an API server alone, module by module."""

    def _split_scope(self, nodeid: str) -> str:
        path = Path(nodeid.partition("::")[0])
        shares = path.parent.name == Path(__file__).parent.name and path.name not in WITHOUT_CLUSTER
        return DEVCLUSTER if shares else str(path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> TwoHalves:  # noqa: ANN401 - of xdist
    """With `--numprocesses 2`; in the order of the collection, since the cluster takes longest."""
    config.option.loadscopereorder = False
    return TwoHalves(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What has the cluster comes first, in an order in which nothing waits long for what is built ahead."""
    items.sort(key=lambda item: _place(item.path.name))


def _place(module: str) -> tuple[bool, int]:
    return module in WITHOUT_CLUSTER, LAST.index(module) if module in LAST else -1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have recorded for people to read, also by another process."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, text in getattr(report, "user_properties", ()):
            terminalreporter.section(name)
            terminalreporter.write_line(str(text))
