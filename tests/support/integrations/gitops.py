"""Argo CD's engine on the host: what it compares and syncs is one line per comparison (go/gitops/main.go)."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.cluster.kube import Kube, eventually
from tests.support.integrations.programs import GITOPS, programs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDER = "pipelines"
_SECONDS = 120.0
_CALM = 3
_STOP_SECONDS = 30


@dataclass(frozen=True)
class Comparison:
    """One comparison of a commit with the cluster.

    Attributes:
        diffs: "way of comparing: Kind/name" for what is out of sync; all of it is synced then.
        synced: "Kind/name result" of that sync.
        tree: "Kind/name" of what is tracked and of all that it owns.
    """

    revision: str
    diffs: list[str]
    synced: list[str]
    tree: list[str]
    error: str = ""


@dataclass(frozen=True)
class Engine:
    """The running engine."""

    output: Path

    def comparisons(self, revision: str) -> list[Comparison]:
        """All comparisons with a commit so far; the last line may be half written."""
        lines = self.output.read_text().split("\n")[:-1]
        comparisons = (Comparison(**json.loads(line)) for line in lines)
        return [comparison for comparison in comparisons if comparison.revision == revision]

    def synced(self, revision: str) -> list[str]:
        """Results of the first sync of this commit that did not fail."""

        def first() -> list[str]:
            comparisons = self.comparisons(revision)
            return next((each.synced for each in comparisons if each.synced and not each.error), [])

        return eventually(first, _SECONDS, lambda: f"{revision} is synced\n{self.output_tail()}")

    def wait_unchanged(self, revision: str) -> Comparison:
        """Wait for several more comparisons in a row, from now on, that find nothing to do."""
        before = len(self.comparisons(revision))

        def nothing() -> Comparison | None:
            last = self.comparisons(revision)[before:][-_CALM:]
            return (
                last[-1]
                if len(last) == _CALM and not any(comparison.diffs or comparison.error for comparison in last)
                else None
            )

        return eventually(nothing, _SECONDS, lambda: f"{revision} has no diff\n{self.output_tail()}")

    def output_tail(self) -> str:
        """The last of what it said, for the message of a failed test."""
        return self.output.read_text()[-3000:] + self.output.with_suffix(".errors").read_text()[-2000:]


@contextmanager
def engine(kube: Kube, url: str, folder: Path) -> Iterator[Engine]:
    """Keep the folder `pipelines` of a repository in sync with a namespace while the block runs."""
    argv: list[str | Path] = [programs(GITOPS) / "gitops", url, FOLDER, kube.namespace, folder / "clone"]
    output = folder / "engine.comparisons"
    with (
        output.open("wb") as out,
        output.with_suffix(".errors").open("wb") as errors,
        subprocess.Popen(
            [str(word) for word in argv], stdout=out, stderr=errors, env=dict(kube.environment)
        ) as process,
    ):
        try:
            yield Engine(output)
            assert process.poll() is None, Engine(output).output_tail()
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
