"""The fixtures of one real cluster, and the order of its tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

from tests.support.cluster.fixtures import (
    ahead,
    built,
    canaries_apart,
    cluster,
    handover,
    hub_kube,
    images,
    library_folder,
    namespace,
    namespaces,
    operator,
    run_devcluster,
    shared_namespace,
    stage,
    wait_for_canaries,
)
from tests.support.cluster.processes import (
    CANARIES,
    RUN_FOLDER,
    devcluster_note,
    has_canaries_apart,
    process_count,
)

# After those that build, while the rest is built ahead; what looks back at all of it is the last.
LAST = (CANARIES, "test_slice.py", "test_rights.py")
DEVCLUSTER, ALONE = "devcluster", "without it, and the canaries"
WITHOUT_CLUSTER = {
    "test_admission.py",
    "test_api_server.py",
    "test_canary_api.py",
    "test_chart_values.py",
    "test_delivery.py",
    "test_gpu_targets.py",
    "test_images_api.py",
    "test_release_charts.py",
}

__all__ = [
    "ahead",
    "built",
    "canaries_apart",
    "cluster",
    "handover",
    "hub_kube",
    "images",
    "library_folder",
    "namespace",
    "namespaces",
    "operator",
    "shared_namespace",
    "stage",
    "wait_for_canaries",
]


def pytest_configure(config: pytest.Config) -> None:
    """Before there are other processes: all of them note in one folder what they bring up."""
    if not hasattr(config, "workerinput"):
        os.environ[RUN_FOLDER] = tempfile.mkdtemp(prefix="cluster-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Take down what an interrupted process has left: xdist gives its fixtures ten seconds."""
    if not hasattr(config, "workerinput"):
        if devcluster_note().exists():
            run_devcluster("down")
        shutil.rmtree(os.environ.pop(RUN_FOLDER))


class TwoHalves(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Of two processes one starts the devcluster; the other begins with what needs an API server alone.

    When it has done that, the first one has built the pipeline whose canaries the other tests then.
    """

    @cached_property
    def _canaries_apart(self) -> bool:
        return has_canaries_apart({_module(nodeid).name for nodeid in self.collection}, self.numnodes)

    def _split_scope(self, nodeid: str) -> str:
        path = _module(nodeid)
        if path.parent.name != Path(__file__).parent.name:
            return str(path)
        is_alone = path.name in WITHOUT_CLUSTER or (self._canaries_apart and path.name == CANARIES)
        return ALONE if is_alone else DEVCLUSTER


def _module(nodeid: str) -> Path:
    return Path(nodeid.partition("::")[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> TwoHalves:  # noqa: ANN401 - of xdist
    """With `--numprocesses 2`; in the order of the collection, since the cluster takes longest."""
    config.option.loadscopereorder = False
    return TwoHalves(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What has the cluster comes first, in an order in which nothing waits long for what is built ahead."""
    apart = has_canaries_apart({item.path.name for item in items}, process_count(config))
    items.sort(key=lambda item: _place(item.path.name, canaries_apart=apart))


def _place(module: str, *, canaries_apart: bool) -> tuple[int, int]:
    if module == CANARIES and canaries_apart:
        return 2, 0
    return int(module in WITHOUT_CLUSTER), LAST.index(module) if module in LAST else -1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have recorded for people to read, also by another process."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, text in getattr(report, "user_properties", ()):
            terminalreporter.section(name)
            terminalreporter.write_line(str(text))
