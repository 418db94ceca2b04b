"""Users of the demo's pipeline inside the cluster, where its Service splits what they ask for."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from examples.demo_support import hub
from examples.demo_support.install import wait_for_rollout
from examples.demo_support.settings import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.demo_support.commands import Tools

NAME: Final = "demo-load-generator"
PROGRAM: Final = ROOT / "examples" / "demo_load_generator.py"
_FOLDER: Final = "/opt/load-generator"


@dataclass(frozen=True)
class LoadStats:
    """What the users got so far.

    Attributes:
        images: answers with an image.
        failed: answers without one.
        error: the last of those.
        rate: images a second.
    """

    images: int = 0
    failed: int = 0
    error: str = ""
    rate: float = 0.0

    def __str__(self) -> str:
        """One line for the person."""
        summary = f"{self.images} images, {self.rate:.1f} a second, {self.failed} failed"
        return f"{summary} ({self.error})" if self.error else summary


@dataclass(frozen=True)
class LoadGenerator:
    """Users that ask now."""

    tools: Tools
    namespace: str

    def stats(self) -> LoadStats:
        """What they got so far; nothing while there is no first image."""
        text = self.tools.output("kubectl", "logs", "-n", self.namespace, f"deployment/{NAME}", "--tail=1")
        return LoadStats(**json.loads(text)) if text.strip() else LoadStats()


@contextmanager
def load_generator(tools: Tools, image: str, namespace: str, service: str) -> Iterator[LoadGenerator]:
    """Let users ask the service for as long as the block runs.

    Args:
        tools: of the cluster.
        image: the demo hub's, since it has a Python.
        namespace: of the service, and of the users' pod.
        service: name of the pipeline's Service.

    Raises:
        DemoError: The pod does not start.
    """
    tools.apply(manifest(namespace, image, f"http://{service}:8000"))
    try:
        wait_for_rollout(tools, NAME, namespace)
        yield LoadGenerator(tools, namespace)
    finally:
        what = ["deployment,configmap", NAME, "-n", namespace, "--ignore-not-found", "--wait=false"]
        tools.output("kubectl", "delete", *what)


def manifest(namespace: str, image: str, url: str) -> str:
    """The users' program and the pod that runs it, as one JSON list for kubectl."""
    labels = {"app.kubernetes.io/name": NAME}
    metadata = {"name": NAME, "namespace": namespace, "labels": labels}
    container = {
        "name": "load-generator",
        "image": image,
        "command": ["python3", f"{_FOLDER}/{PROGRAM.name}", url],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
        "volumeMounts": [{"name": "program", "mountPath": _FOLDER}],
    }
    pod = hub.pod(labels, container)
    pod["spec"]["volumes"] = [{"name": "program", "configMap": {"name": NAME}}]
    program = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {PROGRAM.name: PROGRAM.read_text()},
    }
    deployment: dict[str, Any] = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": pod},
    }
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [program, deployment]})
