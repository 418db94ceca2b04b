"""From `kubectl apply` to an image, and back to nothing. The tests of this file share one pipeline, in order."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from examples.client import Request, Server, generate
from examples.demo_support.settings import GUIDANCE
from examples.demo_training.grading import grade
from tests.support.cluster.kube import Kube, Object, condition, eventually
from tests.support.cluster.load import load
from tests.support.cluster.pipelines import describe_namespace, end_state, example, leftovers, wait_ready
from tests.support.cluster.upgrade import servers, to_the_next_version

if TYPE_CHECKING:
    from pathlib import Path

    from examples.demo_support.cluster import Cluster
    from examples.demo_support.install import Images
    from tests.support.cluster.library import Library

BEFORE_AND_AFTER = 5
PROMPT = "a red circle on a blue background"


@pytest.fixture(scope="module")
def served(built: Library) -> Kube:
    """A namespace in which examples/pipeline.yaml was built, and serves."""
    built.kube.apply(example())
    wait_ready(built.kube)
    return built.kube


def draw(kube: Kube, steps: int) -> bytes:
    """From the server's pod: the Service may still lead to one that is about to stop, which takes its time."""
    pod = eventually(lambda: only_server(kube), 300, lambda: f"one server is left\n{describe_namespace(kube)}")
    request = Request(prompt=PROMPT, seed=7, guidance_scale=GUIDANCE)
    return generate(f"{pod['status']['podIP']}:8000", steps, request)


def only_server(kube: Kube) -> Object | None:
    pods = serving_pods(kube)
    return pods[0] if len(pods) == 1 else None


def test_a_served_pipeline_draws_what_the_prompt_says(served: Kube) -> None:
    for steps in (4, 20):
        pixels = np.asarray(Image.open(io.BytesIO(draw(served, steps))))
        assert pixels.shape == (64, 64, 3)
        assert grade(pixels, PROMPT).both, f"{steps} steps: {grade(pixels, PROMPT)}"


def test_kubectl_get_tells_the_story_in_one_line(served: Kube) -> None:
    header, line = served.run("get", "dp", "shapes").splitlines()
    assert header.split() == ["NAME", "READY", "REASON", "ENGINES", "TARGETS", "CANARY", "AGE"]
    assert line.split()[:5] == ["shapes", "True", "Ready", "4/4", "1/1"]


def test_every_condition_is_true_for_this_generation(served: Kube) -> None:
    pipeline = served.get("diffusionpipelines", "shapes")
    assert pipeline is not None
    for kind in ("Accepted", "EnginesReady", "RepositoryReady", "Available", "RolloutComplete", "Ready"):
        state = condition(pipeline, kind)
        assert (state["status"], state["observedGeneration"]) == (
            "True",
            pipeline["metadata"]["generation"],
        ), kind


def test_the_operator_writes_nothing_of_its_own_into_metadata(served: Kube) -> None:
    pipeline = served.get("diffusionpipelines", "shapes")
    assert pipeline is not None
    assert not pipeline["metadata"].get("finalizers")
    assert not pipeline["metadata"].get("annotations")


def test_steady_state_and_a_label_write_nothing(served: Kube) -> None:
    before = fingerprints(served)
    served.run("label", "dp", "shapes", "team=drawing")
    served.run("annotate", "job", "--all", "tests/poke=1")
    # The operator has looked at the poke once a later change of the spec, which needs no build, shows in the status.
    served.run("patch", "dp", "shapes", "--type=merge", "-p", '{"spec":{"targets":[{"name":"cpu","replicas":2}]}}')
    wait_ready(served)
    served.run("patch", "dp", "shapes", "--type=merge", "-p", '{"spec":{"targets":[{"name":"cpu","replicas":1}]}}')
    wait_ready(served)
    assert fingerprints(served) == before


def fingerprints(kube: Kube) -> Object:
    """What would change if a Job were started or an object replaced."""
    return {
        kind: {one["metadata"]["name"]: one["metadata"]["uid"] for one in kube.list(kind)}
        for kind in ("jobs", "deployments", "services", "persistentvolumeclaims")
    }


def test_another_scheduler_compiles_nothing_and_replaces_the_server(served: Kube) -> None:
    before, image = fingerprints(served), draw(served, 4)
    served.run("patch", "dp", "shapes", "--type=merge", "-p", '{"spec":{"scheduler":{"type":"Euler"}}}')
    wait_ready(served)
    after = fingerprints(served)
    new_jobs = [name for name in after["jobs"] if name not in before["jobs"]]
    assert sorted(name.split("-")[0] for name in new_jobs) == ["assemble", "parity"]
    assert len(after["deployments"]) == 1
    assert after["deployments"].keys() != before["deployments"].keys()
    assert draw(served, 4) != image

    served.run("patch", "dp", "shapes", "--type=merge", "-p", '{"spec":{"scheduler":{"type":"DDIM"}}}')
    wait_ready(served)
    assert draw(served, 4) == image


def test_a_killed_server_comes_back_with_the_same_images(served: Kube) -> None:
    state, image = end_state(served), draw(served, 4)
    (pod,) = serving_pods(served)
    served.run("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
    eventually(lambda: replaced(served, pod["metadata"]["uid"]), 300, "the Deployment makes a new pod")
    wait_ready(served)
    assert end_state(served) == state
    assert draw(served, 4) == image


def leaving(kube: Kube) -> bool:
    """Whether a server is on its way out."""
    pods = kube.list("pods", "diffusion-operator.io/revision")
    return any("deletionTimestamp" in pod["metadata"] for pod in pods)


def serving_pods(kube: Kube) -> list[Object]:
    """Pods of the server; those that are on their way out finish their requests and do not count."""
    pods = kube.list("pods", "diffusion-operator.io/revision")
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def replaced(kube: Kube, uid: str) -> bool:
    pods = serving_pods(kube)
    return bool(pods) and all(
        pod["metadata"]["uid"] != uid
        and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
        for pod in pods
    )


def test_a_rolling_restart_under_load_loses_no_request(served: Kube) -> None:
    service = served.get("service", "shapes") or {}
    address = service["spec"]["clusterIP"]
    (before,) = serving_pods(served)
    request = Request(prompt=PROMPT, seed=7, guidance_scale=GUIDANCE)
    users = [Server(f"{address}:8000"), Server(f"{address}:8001", "grpc")]
    # Pauses leave processors to the pod that starts.
    with load(users, request, 4, pause=0.2) as asking:
        eventually(lambda: asking.answered >= BEFORE_AND_AFTER, 300, lambda: f"images come: {asking}")
        served.run("rollout", "restart", "deployment", "-l", "diffusion-operator.io/pipeline=shapes")
        eventually(
            lambda: replaced(served, before["metadata"]["uid"]), 300, lambda: f"a new pod\n{describe_namespace(served)}"
        )
        eventually(lambda: not leaving(served), 300, lambda: f"the old pod is gone\n{describe_namespace(served)}")
        count = asking.answered
        eventually(lambda: asking.answered >= count + BEFORE_AND_AFTER, 300, lambda: f"images come: {asking}")
    assert not asking.lost
    wait_ready(served)


def lose_the_status(kube: Kube) -> None:
    """It is there again after a whole pass of the operator: status comes last."""
    wiped = json.dumps([{"op": "remove", "path": "/status"}])
    kube.run("patch", "dp", "shapes", "--subresource=status", "--type=json", "-p", wiped)
    wait_ready(kube)


def test_losing_the_whole_status_loses_nothing(served: Kube) -> None:
    before = end_state(served)
    objects = fingerprints(served)
    lose_the_status(served)
    assert end_state(served) == before
    assert fingerprints(served) == objects


def test_an_upgrade_to_the_next_chart_and_images_builds_nothing_and_restarts_no_server(
    cluster: Cluster, images: Images, served: Kube, tmp_path: Path
) -> None:
    before, objects, running = end_state(served), fingerprints(served), servers(served)
    to_the_next_version(cluster, images, tmp_path)
    # The new operator has made up its mind about the pipeline.
    lose_the_status(served)
    assert servers(served) == running
    assert fingerprints(served) == objects
    assert end_state(served) == before


def test_deleting_the_pipeline_leaves_nothing(served: Kube) -> None:
    served.run("delete", "dp", "shapes", "--wait=false")
    eventually(
        lambda: not leftovers(served) and not served.list("persistentvolumeclaims"),
        60,
        lambda: f"everything is gone\n{leftovers(served)}\n{describe_namespace(served)}",
    )
