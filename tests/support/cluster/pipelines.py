"""Pipelines as the tests apply them, and what they wait for."""

from __future__ import annotations

import json
from typing import Any

import yaml

from tests.support.cluster.kube import Kube, Object, condition, eventually
from tests.support.paths import EXAMPLES

EXAMPLE = EXAMPLES / "pipeline.yaml"
# A whole build takes about two minutes on two cores that do nothing else, many times that on a busy machine.
BUILD_SECONDS = 840.0


def example(name: str = "shapes", **spec: Any) -> Object:  # noqa: ANN401 - any field of the spec
    """examples/pipeline.yaml under another name, with fields of the spec replaced."""
    document: Object = yaml.safe_load(EXAMPLE.read_text())
    document["metadata"]["name"] = name
    document["spec"].update(spec)
    return document


def hugging_face(repo: str, revision: str) -> Object:
    """spec.model with another repository."""
    return {"source": {"huggingFace": {"repo": repo, "revision": revision}}}


def ready(kube: Kube, name: str = "shapes") -> Object | None:
    """The pipeline, once it is ready for the generation that it has now."""
    live_pipeline = kube.get("diffusionpipelines", name)
    state = condition(live_pipeline, "Ready")
    current = live_pipeline is not None and state.get("observedGeneration") == live_pipeline["metadata"]["generation"]
    return live_pipeline if current and state.get("status") == "True" else None


def wait_ready(kube: Kube, name: str = "shapes", deadline: float = BUILD_SECONDS) -> Object:
    """Wait until it is ready; the error tells all that kubectl can tell."""
    return eventually(lambda: ready(kube, name), deadline, lambda: describe_namespace(kube))


def describe_namespace(kube: Kube) -> str:
    """Everything about a namespace, for the message of a failed test."""
    listed = kube.run("get", "dp,jobs,pods,deployments,pvc", "-o", "wide")
    return f"pipeline ready\n{listed}\n{kube.run('describe', 'dp')}\n{kube.run('get', 'events')}"


def leftovers(kube: Kube) -> list[str]:
    """What the operator, or a controller for it, has made in a namespace; a claim that the user made is not of it."""
    kinds = "dp,jobs,pods,deployments,replicasets,services,poddisruptionbudgets,horizontalpodautoscalers"
    return kube.run("get", kinds, "-o", "name").split()


def end_state(kube: Kube, name: str = "shapes") -> Object:
    """What has to be the same however a pipeline got there: artifacts, revision, and the set of objects."""
    status = (kube.get("diffusionpipelines", name) or {})["status"]
    digests = {part: build["digest"] for part, build in status["components"].items()}
    engines = {part: build["skus"]["cpu"]["digest"] for part, build in status["components"].items()}
    objects = {
        kind: sorted(one["metadata"]["name"] for one in kube.list(kind))
        for kind in ("jobs", "deployments", "services", "persistentvolumeclaims")
    }
    revisions = {target["name"]: target["stableRevision"] for target in status["targets"]}
    return json.loads(json.dumps({"onnx": digests, "engines": engines, "revisions": revisions, **objects}))  # type: ignore[no-any-return]


def running_job_pod(kube: Kube, stage: str) -> Object:
    """A pod of the stage, and of the denoiser where there is one for each component, that runs now.

    Asked often, since a fetch takes only seconds.
    """
    component = ",diffusion-operator.io/component=denoiser" if stage in {"export", "compile"} else ""

    def find() -> Object | None:
        pods = kube.list("pods", f"diffusion-operator.io/stage={stage}{component}")
        return next((pod for pod in pods if pod["status"].get("phase") == "Running"), None)

    return eventually(find, BUILD_SECONDS, lambda: f"a running {stage} pod\n{describe_namespace(kube)}", pause=0.1)
