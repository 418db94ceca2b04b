"""What the cluster tests say to the API server, by the kubectl that a user has; `get` and `list` read it directly."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tests.support.cluster.api_reader import ApiError, ApiReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Object = dict[str, Any]
T = TypeVar("T")


class KubectlError(AssertionError):
    """kubectl refused; the text is what a user would have read."""


@dataclass(frozen=True)
class Kube:
    """kubectl bound to one namespace."""

    environment: Mapping[str, str]
    namespace: str

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Return standard output.

        Raises:
            KubectlError: with kubectl's own words.
        """
        process = subprocess.run(
            ["kubectl", "--namespace", self.namespace, *arguments],
            env=dict(self.environment),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        if process.returncode != 0:
            raise KubectlError(process.stderr.strip())
        return process.stdout

    def apply(self, *objects: Object) -> None:
        """Apply server-side, as GitOps engines do, under a manager of the tests' own."""
        body = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.run(
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=tests",
            "--validate=strict",
            "-f",
            "-",
            stdin=body,
        )

    def get(self, kind: str, name: str) -> Object | None:
        """Return the object, or None where there is none.

        Raises:
            KubectlError: the API server refuses.
        """
        try:
            return self._reader.get(kind, self.namespace or "default", name)
        except ApiError as error:
            raise KubectlError(str(error)) from error

    def list(self, kind: str, selector: str = "") -> list[Object]:
        """Return all objects of a kind in the namespace.

        Raises:
            KubectlError: the API server refuses.
        """
        try:
            return self._reader.list(kind, self.namespace or "default", selector)
        except ApiError as error:
            raise KubectlError(str(error)) from error

    @cached_property
    def _reader(self) -> ApiReader:
        return ApiReader(Path(self.environment["KUBECONFIG"]))

    def delete(self, kind: str, name: str, *, wait: bool = True) -> None:
        """Delete; an object that is not there is fine."""
        self.run("delete", kind, name, "--ignore-not-found", f"--wait={str(wait).lower()}")


def eventually(
    condition: Callable[[], T | None], deadline: float, what: str | Callable[[], str], pause: float = 0.5
) -> T:
    """First truthy return value of `condition` within `deadline` seconds, called every `pause` seconds.

    Raises:
        AssertionError: naming what did not happen.
    """
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            description = what() if callable(what) else what
            raise AssertionError(f"not within {deadline:.0f} s: {description}")
        time.sleep(pause)


def condition(resource: Object | None, kind: str) -> Object:
    """Return one condition of a resource's status; empty where it has none of that type."""
    conditions = ((resource or {}).get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == kind), {})
