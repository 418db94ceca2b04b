"""What the API server itself answers, before any operator has seen it: nothing is created here."""

from __future__ import annotations

import copy
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cluster.admission import HUB, REVISION, answer, pipeline, with_schema
from tests.support.cluster.kube import Kube, KubectlError
from tests.support.paths import CRD
from tools.devcluster.bare import api_server

if TYPE_CHECKING:
    from collections.abc import Iterator

SPLIT = {"strategy": "RollingUpdate", "traffic": {"gateway": {"name": "web"}}}


def variants(*weights: int, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any field of a variant
    """A rollout with variants of these weights."""
    one = {"serving": {"image": "t:2"}, **more}
    return {
        **SPLIT,
        "experiment": {"variants": [{"name": f"v{weight}", "weight": weight, **one} for weight in weights]},
    }


@pytest.fixture(scope="module")
def api() -> Iterator[Kube]:
    """An API server with the CRD, which is the one that the chart brings (`make check`)."""
    with api_server() as server:
        server.apply(CRD)
        programs = f"{server.kubectl.parent}:{os.environ['PATH']}"
        environment = os.environ | {"KUBECONFIG": str(server.kubeconfig), "PATH": programs}
        yield with_schema(Kube(environment, "default"))


def test_the_shortest_pipeline_is_accepted_and_every_default_is_shown(api: Kube) -> None:
    text = api.run("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(pipeline()))
    spec = json.loads(text)["spec"]
    assert spec["pipelines"] == [{"task": "generate", "steps": [20]}]
    assert spec["shapes"]["height"] == {"min": 256, "opt": 512, "max": 768}
    assert spec["storage"] == {"size": "20Gi"}
    assert spec["targets"][0]["replicas"] == 1
    assert spec["engines"]["timeout"] == "1h"
    assert spec["suspend"] is False


@pytest.mark.parametrize(
    "spec",
    [
        {"model": {"source": {"persistentVolumeClaim": {"claimName": "mine", "path": "models/shapes"}}}},
        {"storage": {"claimName": "common"}},
        {"storage": {"size": "2Gi", "storageClassName": "fast", "accessModes": ["ReadWriteOnce"]}},
        {"scheduler": {"type": "Euler"}, "pipelines": [{"task": "generate", "steps": [1, 4, 64]}]},
        {"scheduler": {"type": "PNDM"}, "pipelines": [{"task": "generate", "steps": [63]}]},
        {"scheduler": {"type": "DPMSolverMultistep", "useKarrasSigmas": True, "timestepSpacing": "trailing"}},
        {"serving": {"batching": {"maxDelay": "500us", "preferred": [2, 4]}, "env": [{"name": "A", "value": "b"}]}},
        {"targets": [{"name": "a"}, {"name": "b", "tolerations": [{"operator": "Exists"}]}]},
        {"rollout": {}},
        {"rollout": {"steps": [{"weight": 1}, {"weight": 10, "pause": "30s"}], "rollbackTo": "0123abcd"}},
        {"rollout": {"traffic": {"gateway": {"name": "web", "hostnames": ["a.example"]}, "mirrorPercent": 5}}},
        {"rollout": {**SPLIT, "experiment": {"variants": [{"name": "a", "weight": 49, "serving": {"image": "t:2"}}]}}},
        {"rollout": {"analysis": {"quality": {"prompts": [{"prompt": "a"}], "minPSNR": 30, "maxColorShift": 0.2}}}},
    ],
)
def test_what_is_served_is_accepted(api: Kube, spec: dict[str, Any]) -> None:
    assert answer(api, pipeline(**spec)) == ""


def hub(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any field of the source
    source = copy.deepcopy(HUB)
    source["huggingFace"].update(fields)
    return {"model": {"source": source}}


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "branch": (hub(revision="main"), "spec.model.source.huggingFace.revision", "not a branch or tag"),
    "short-revision": (hub(revision=REVISION[:39]), "spec.model.source.huggingFace.revision", "full commit id"),
    "upper-case": (hub(revision=REVISION.upper()), "spec.model.source.huggingFace.revision", "lower-case"),
    "repo": (hub(repo="shapes"), "spec.model.source.huggingFace.repo", "should match"),
    "no-source": ({"model": {"source": {}}}, "spec.model.source", "exactly one of"),
    "two-sources": (
        {"model": {"source": {**HUB, "persistentVolumeClaim": {"claimName": "mine"}}}},
        "spec.model.source",
        "exactly one of",
    ),
    "path": (
        {"model": {"source": {"persistentVolumeClaim": {"claimName": "mine", "path": "../other"}}}},
        "spec.model.source.persistentVolumeClaim.path",
        "must not contain '..'",
    ),
    "no-steps": ({"pipelines": [{"task": "generate", "steps": []}]}, "spec.pipelines[0].steps", "at least 1"),
    "zero-steps": ({"pipelines": [{"task": "generate", "steps": [0]}]}, "spec.pipelines[0].steps[0]", "equal to 1"),
    "65-steps": ({"pipelines": [{"task": "generate", "steps": [65]}]}, "spec.pipelines[0].steps[0]", "equal to 64"),
    "steps-twice": ({"pipelines": [{"task": "generate", "steps": [4, 4]}]}, "spec.pipelines[0].steps[1]", "Duplicate"),
    "task": ({"pipelines": [{"task": "upscale"}]}, "spec.pipelines[0].task", '"generate", "img2img", "inpaint"'),
    "task-twice": (
        {"pipelines": [{"task": "generate"}, {"task": "generate"}]},
        "spec.pipelines",
        "listed once with the same features",
    ),
    "size": ({"shapes": {"height": {"opt": 500}}}, "spec.shapes.height.opt", "multiple of 8"),
    "order": ({"shapes": {"width": {"min": 768, "opt": 512}}}, "spec.shapes.width", "min <= opt <= max"),
    "batch": ({"shapes": {"batch": {"max": 0}}}, "spec.shapes.batch.max", "equal to 1"),
    "preferred": (
        {"shapes": {"batch": {"max": 4}}, "serving": {"batching": {"preferred": [8]}}},
        "spec.serving.batching.preferred",
        "shapes.batch.max",
    ),
    "scheduler": ({"scheduler": {"type": "Flow"}}, "spec.scheduler.type", '"DDIM"'),
    "karras": (
        {"scheduler": {"type": "PNDM", "useKarrasSigmas": True}},
        "spec.scheduler.useKarrasSigmas",
        "use another type",
    ),
    "spacing": ({"scheduler": {"timestepSpacing": "even"}}, "spec.scheduler.timestepSpacing", '"leading", "trailing"'),
    "pndm": (
        {"scheduler": {"type": "PNDM"}, "pipelines": [{"task": "generate", "steps": [4, 64]}]},
        "spec.pipelines",
        "at most 63 steps",
    ),
    "heun": (
        {"scheduler": {"type": "Heun"}, "pipelines": [{"task": "generate", "steps": [33]}]},
        "spec.pipelines",
        "at most 32 steps",
    ),
    "precision": ({"precision": "float8"}, "spec.precision", '"float32"'),
    "runtime": ({"engines": {"runtime": "openvino"}}, "spec.engines.runtime", '"tensorrt", "onnxruntime"'),
    "timeout": ({"engines": {"timeout": "soon"}}, "spec.engines.timeout", "should match"),
    "memory": (
        {"engines": {"resources": {"limits": {"memory": "lots"}}}},
        "spec.engines.resources.limits.memory",
        "should match",
    ),
    "no-target": ({"targets": []}, "spec.targets", "at least 1"),
    "target-twice": ({"targets": [{"name": "a"}, {"name": "a"}]}, "spec.targets[1]", "Duplicate"),
    "target-name": ({"targets": [{"name": "CPU"}]}, "spec.targets[0].name", "should match"),
    "replicas": ({"targets": [{"name": "a", "replicas": 0}]}, "spec.targets[0].replicas", "equal to 1"),
    "two-storages": ({"storage": {"claimName": "c", "size": "1Gi"}}, "spec.storage", "exactly one of"),
    "no-storage": ({"storage": {}}, "spec.storage", "exactly one of"),
    "class-of-a-given-claim": (
        {"storage": {"claimName": "c", "storageClassName": "fast"}},
        "spec.storage",
        "belong to size",
    ),
    "unknown-field": ({"rollouts": {"strategy": "Canary"}}, "spec.rollouts", "unknown field"),
    "strategy": ({"rollout": {"strategy": "Recreate"}}, "spec.rollout.strategy", '"Canary", "RollingUpdate"'),
    "no-rollout-steps": ({"rollout": {"steps": []}}, "spec.rollout.steps", "at least 1"),
    "falling-weights": ({"rollout": {"steps": [{"weight": 50}, {"weight": 10}]}}, "spec.rollout.steps", "must rise"),
    "equal-weights": ({"rollout": {"steps": [{"weight": 10}, {"weight": 10}]}}, "spec.rollout.steps", "must rise"),
    "all-of-the-traffic": ({"rollout": {"steps": [{"weight": 100}]}}, "spec.rollout.steps[0].weight", "equal to 99"),
    "mirror-without-gateway": (
        {"rollout": {"traffic": {"mirrorPercent": 5}}},
        "spec.rollout.traffic.mirrorPercent",
        "add traffic.gateway",
    ),
    "experiment-without-gateway": (
        {"rollout": {**variants(10), "traffic": {}}},
        "spec.rollout.experiment",
        "add traffic.gateway",
    ),
    "experiment-and-canary": (
        {"rollout": {**variants(10), "strategy": "Canary"}},
        "spec.rollout.strategy",
        "use strategy RollingUpdate",
    ),
    "experiment-and-rollback": (
        {"rollout": {**variants(10), "rollbackTo": "0123abcd"}},
        "spec.rollout.rollbackTo",
        "end the experiment first",
    ),
    "nothing-for-stable": ({"rollout": variants(40, 60)}, "spec.rollout.experiment.variants", "at least 1 %"),
    "variant-called-stable": (
        {"rollout": variants(10, name="stable")},
        "spec.rollout.experiment.variants[0]",
        "give the variant another name",
    ),
    "variant-without-difference": (
        {"rollout": {**SPLIT, "experiment": {"variants": [{"name": "a", "weight": 10}]}}},
        "spec.rollout.experiment.variants[0]",
        "give it model, scheduler or serving",
    ),
    "too-many-services": (
        {"rollout": variants(10, 20), "targets": [{"name": f"t{number}"} for number in range(6)]},
        "spec.rollout.experiment",
        "use fewer of them",
    ),
    "variant-with-too-many-steps": (
        {"rollout": variants(10, scheduler={"type": "Heun"}), "pipelines": [{"task": "generate", "steps": [40]}]},
        "spec.rollout",
        "at most 32 steps",
    ),
    "rollback-to": ({"rollout": {"rollbackTo": "v1"}}, "spec.rollout.rollbackTo", "should match"),
}


@pytest.mark.parametrize(("spec", "field", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_work_is_refused_with_the_name_of_the_field(
    api: Kube, spec: dict[str, Any], field: str, words: str
) -> None:
    said = answer(api, pipeline(**spec))
    assert field in said
    assert words in said


def test_a_name_that_services_cannot_have_is_refused(api: Kube) -> None:
    assert "at most 38 characters" in answer(api, pipeline("a" * 39))
    assert answer(api, pipeline("a" * 38)) == ""
    assert "must start with a letter" in answer(api, pipeline("1st"))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({"size": "2Gi"}, {"size": "1Gi"}, "never shrink"),
        ({"size": "2Gi"}, {"size": "2Gi", "storageClassName": "other"}, "storageClassName of an existing claim"),
        ({"size": "2Gi"}, {"size": "2Gi", "accessModes": ["ReadWriteOnce"]}, "accessModes of an existing claim"),
    ],
)
def test_what_a_claim_cannot_become_is_refused(
    api: Kube, before: dict[str, Any], after: dict[str, Any], words: str
) -> None:
    name = f"admission-{words.partition(' ')[0].lower()}"
    first = pipeline(name, storage=before)
    api.run("create", "-f", "-", stdin=json.dumps(first))
    try:
        grown = json.dumps({"spec": {"storage": {"size": "3Gi"}}})
        api.run("patch", "dp", name, "--type=merge", "--dry-run=server", "-p", grown)
        change = json.dumps({"spec": {"storage": after}})
        with pytest.raises(KubectlError, match=words):
            api.run("patch", "dp", name, "--type=merge", "--dry-run=server", "-p", change)
    finally:
        api.delete("dp", name)


def test_kubectl_get_tells_the_story_in_columns(api: Kube) -> None:
    name = "admission-columns"
    api.run("create", "-f", "-", stdin=json.dumps(pipeline(name)))
    try:
        header = api.run("get", "dp", name, "-o", "wide").splitlines()[0]
    finally:
        api.delete("dp", name)
    assert header.split() == ["NAME", "READY", "REASON", "ENGINES", "TARGETS", "CANARY", "AGE", "MESSAGE"]
