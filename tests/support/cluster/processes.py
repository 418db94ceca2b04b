"""The two processes of `make test-cluster`, and what one hands over to the other."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.cluster.kube import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

CANARIES = "test_canary.py"
"""Runs in the process that does not start the devcluster."""
_BUILDS_AHEAD = "test_bad_input.py"
HANDOVER_SECONDS = 1500.0
"""How long one process waits for the other, on a machine that is busy with more than this run."""

RUN_FOLDER = "CLUSTER_TESTS_FOLDER"
"""Environment variable with a folder of this run, where its processes say what they have brought up."""


def devcluster_note() -> Path:
    """The file that is there while a devcluster runs that this run has brought up."""
    return Path(os.environ.get(RUN_FOLDER, tempfile.gettempdir())) / "devcluster-of-this-run"


def process_count(config: pytest.Config) -> int:
    """How many processes run the tests, said by one of them."""
    worker: dict[str, Any] = getattr(config, "workerinput", {})
    return int(worker.get("workercount", 1))


def has_canaries_apart(modules: Iterable[str], processes: int) -> bool:
    """Whether the canaries run beside the other tests of the devcluster, in one that these have built for them."""
    return processes > 1 and {CANARIES, _BUILDS_AHEAD} <= set(modules)


@dataclass(frozen=True)
class Handover:
    """JSON documents in a folder that all processes of a run have."""

    folder: Path

    def publish(self, name: str, document: Any) -> None:  # noqa: ANN401 - any JSON
        """Hand a document over; the last one of a name stays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        staging = self.folder / f".tmp-{secrets.token_hex(4)}"
        staging.write_text(json.dumps(document))
        os.replace(staging, self._path(name))  # noqa: PTH105 - says that a file in the way is replaced

    def publish_default(self, name: str, document: Any) -> None:  # noqa: ANN401 - any JSON
        """Hand a document over unless there is one."""
        if not self._path(name).exists():
            self.publish(name, document)

    def receive(self, name: str) -> Any:  # noqa: ANN401 - any JSON
        """Wait for a document.

        Raises:
            AssertionError: nobody hands it over.
        """
        eventually(self._path(name).exists, HANDOVER_SECONDS, f"the other process hands over: {name}")
        return json.loads(self._path(name).read_text())

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"
