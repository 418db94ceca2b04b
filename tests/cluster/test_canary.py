"""Canaries of one pipeline, one after the other, while users go on asking. The tests of this file run in order."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from examples.client import Request, Server
from examples.demo_support.settings import GUIDANCE
from tests.cluster import load as users
from tests.cluster.kube import Kube, Object, condition, eventually
from tests.cluster.pipelines import example, story, wait_ready
from tests.cluster.repositories import denoiser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.load import Load

PROMPTS = [
    {"prompt": "a red circle on a blue background", "seed": 1, "steps": 4},
    {"prompt": "a large yellow square on a green background", "seed": 2, "steps": 4},
]
# Two processors serve, build and ask at once: how long an answer takes says nothing here.
ROLLOUT = {
    "strategy": "Canary",
    "steps": [{"weight": 50, "pause": "5s"}],
    "progressDeadline": "3m",
    "analysis": {
        "interval": "5s",
        "deadline": "5m",
        "minRequests": 5,
        "maxP95Ratio": 100,
        "maxStepLatencyRatio": 100,
        "quality": {"prompts": PROMPTS},
    },
}
CANARY_SECONDS = 900.0


@pytest.fixture(scope="module")
def served(shared_namespace: Kube) -> Kube:
    """A pipeline with one tier and one target."""
    shared_namespace.apply(example(pipelines=[{"task": "generate", "steps": [4]}], rollout=ROLLOUT))
    wait_ready(shared_namespace)
    return shared_namespace


@pytest.fixture
def load(served: Kube) -> Iterator[Load]:
    """Users of the pipeline's Service; what the test leaves without a picture fails it."""
    service = served.get("service", "shapes")
    assert service is not None
    server = Server(f"{service['spec']['clusterIP']}:8000")
    request = Request(prompt="a red circle on a blue background", guidance_scale=GUIDANCE, height=64, width=64)
    with users.load([server] * 4, request, 4) as asking:
        eventually(lambda: asking.answered > 0, 60, "the first picture")
        yield asking
    assert asking.answered > 0
    assert not asking.lost


def use_denoiser(kube: Kube, name: str) -> None:
    repo, revision = denoiser(name)
    change(kube, model={"components": {"denoiser": {"source": {"huggingFace": {"repo": repo, "revision": revision}}}}})


def change(kube: Kube, **spec: Any) -> None:  # noqa: ANN401 - fields of a spec
    kube.run("patch", "dp", "shapes", "--type=merge", "-p", json.dumps({"spec": spec}))


def target(kube: Kube) -> Object:
    pipeline = kube.get("diffusionpipelines", "shapes")
    assert pipeline is not None
    (found,) = pipeline["status"]["targets"]
    return dict(found)


def stable(kube: Kube) -> str:
    """What live traffic says, not the status."""
    service = kube.get("service", "shapes-cpu")
    assert service is not None
    return str(service["metadata"]["annotations"]["diffusion-operator.io/stable"])


def jobs(kube: Kube) -> set[str]:
    return {one["metadata"]["name"] for one in kube.list("jobs")}


def rejected(kube: Kube, reason: str) -> Object:
    """Wait until the canary of this generation has been taken back for this reason."""

    def seen() -> Object | None:
        found = kube.get("diffusionpipelines", "shapes")
        state = condition(found, "RolloutComplete")
        now = found is not None and state.get("observedGeneration") == found["metadata"]["generation"]
        return state if now and state.get("reason") == "CanaryRejected" else None

    state = eventually(seen, CANARY_SECONDS, lambda: f"the canary is taken back\n{story(kube)}")
    assert f"{reason}:" in state["message"], state["message"]
    return state


def test_a_better_denoiser_is_promoted_without_a_lost_request_and_with_one_new_engine(served: Kube, load: Load) -> None:
    before, engines = stable(served), jobs(served)
    use_denoiser(served, "few-steps")
    wait_ready(served, deadline=CANARY_SECONDS)
    assert stable(served) != before
    assert sum(name.startswith("compile-") for name in jobs(served) - engines) == 1
    assert before in target(served)["history"]
    assert not load.lost


def test_the_way_back_builds_nothing(served: Kube, load: Load) -> None:
    (earlier,), now, before = target(served)["history"], stable(served), jobs(served)
    change(served, rollout={"rollbackTo": earlier})
    eventually(lambda: stable(served) == earlier, 300, lambda: story(served))
    change(served, rollout={"rollbackTo": None})
    eventually(lambda: stable(served) == now, 300, lambda: story(served))
    assert jobs(served) == before
    assert not load.lost


@pytest.mark.parametrize("name", ["wrong-colours", "shuffled"])
def test_a_denoiser_with_wrong_pictures_is_refused_before_a_user_sees_it(served: Kube, load: Load, name: str) -> None:
    before = stable(served)
    use_denoiser(served, name)
    rejected(served, "PictureQuality")
    assert stable(served) == before
    service = served.get("service", "shapes-cpu")
    assert service is not None
    assert service["spec"]["selector"]["diffusion-operator.io/revision"] == before
    assert not load.lost


def test_a_canary_whose_pods_never_start_is_taken_back(served: Kube, load: Load) -> None:
    before = stable(served)
    change(served, rollout={"progressDeadline": "20s"}, targets=[{"name": "cpu", "nodeSelector": {"nowhere": "1"}}])
    rejected(served, "NotReady")
    assert stable(served) == before
    change(served, rollout={"progressDeadline": "3m"}, targets=[{"name": "cpu"}])
    assert not load.lost


def test_after_all_that_the_next_good_spec_goes_through_without_help(served: Kube, load: Load) -> None:
    use_denoiser(served, "few-steps")
    change(served, scheduler={"type": "Euler"})
    wait_ready(served, deadline=CANARY_SECONDS)
    assert target(served)["canaryRevision"] in (None, stable(served))
    assert not load.lost
