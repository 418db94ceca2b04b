"""Canaries of one pipeline, one after the other, while users go on asking. The tests of this file run in order."""

from __future__ import annotations

import io
import json
import logging
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from rich.console import Console

from examples.client import Request, Server
from examples.demo_support.board import Board
from examples.demo_support.canary import Place, Result, follow
from examples.demo_support.load_generator import load_generator
from examples.demo_support.settings import GUIDANCE
from tests.support.cluster import load as users
from tests.support.cluster.canaries import LARGE, LONG, PROMPTS, SHORT, SMALL, good, sizes, using
from tests.support.cluster.kube import Kube, Object, condition, eventually
from tests.support.cluster.pipelines import describe_namespace, wait_ready
from tests.support.cluster.processes import HANDOVER_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.demo_support.commands import Tools
    from tests.support.cluster.fixtures import Stage
    from tests.support.cluster.load import Load

LOG = logging.getLogger(__name__)
CANARY_SECONDS = 900.0
# The first test waits for the pipeline, too.
pytestmark = pytest.mark.timeout(HANDOVER_SECONDS + CANARY_SECONDS)


@pytest.fixture(scope="module")
def served(stage: Stage) -> Kube:
    """A pipeline with one tier and one target, which serves."""
    return stage.kube


def address(kube: Kube) -> str:
    service = kube.get("service", "shapes")
    assert service is not None
    return f"{service['spec']['clusterIP']}:8000"


def image_request(size: int) -> Request:
    return Request(prompt="a red circle on a blue background", guidance_scale=GUIDANCE, height=size, width=size)


@contextmanager
def asking(kube: Kube, count: int, pause: float, size: int = SMALL) -> Iterator[Load]:
    """Users of the pipeline's Service; at the end it is told how many images they got."""
    with users.load([Server(address(kube))] * count, image_request(size), 4, pause) as load:
        yield load
        LOG.info("%d images, %.1f a second, lost: %s", load.answered, load.rate, dict(load.lost))


@pytest.fixture
def visitors(served: Kube) -> Iterator[Load]:
    """A few requests a second, which leaves processors to the builds; none may stay without an image."""
    with asking(served, count=2, pause=0.4) as load:
        yield load
    assert not load.lost


@pytest.fixture
def crowd(served: Kube) -> Iterator[Load]:
    """Twice as many, now and then in one batch; what stays without an image fails the test."""
    with asking(served, count=4, pause=0.6) as load:
        yield load
    assert not load.lost


def use_variable(kube: Kube, value: str, **rollout: Any) -> None:  # noqa: ANN401 - fields of spec.rollout
    """Another revision that needs no build."""
    change(kube, serving={"env": [{"name": "TESTED", "value": value}]}, rollout=rollout)


def change(kube: Kube, **spec: Any) -> None:  # noqa: ANN401 - fields of a spec
    kube.run("patch", "dp", "shapes", "--type=merge", "-p", json.dumps({"spec": spec}))


def change_good_spec(kube: Kube, **spec: Any) -> None:  # noqa: ANN401 - fields of a spec
    """From whatever the test before has left to a good spec with these fields."""
    change(kube, **good(**spec))


def target(kube: Kube) -> Object:
    pipeline = kube.get("diffusionpipelines", "shapes")
    assert pipeline is not None
    (target_status,) = pipeline["status"]["targets"]
    return dict(target_status)


def service(kube: Kube) -> Object:
    traffic_service = kube.get("service", "shapes-cpu")
    assert traffic_service is not None
    return traffic_service


def stable(kube: Kube) -> str:
    """What live traffic says, not the status."""
    return str(service(kube)["metadata"]["annotations"]["diffusion-operator.io/stable"])


def followed(tools: Tools, kube: Kube) -> Result:
    """As `make demo-canary` follows it."""
    place = Place(tools, "shapes", kube.namespace)
    # The status still tells of the generation before.
    generation = place.get()["metadata"]["generation"]
    eventually(
        lambda: place.get()["status"].get("observedGeneration") == generation, 120, lambda: describe_namespace(kube)
    )
    return follow(place, Board(Console(file=io.StringIO())))


def jobs(kube: Kube) -> set[str]:
    return {one["metadata"]["name"] for one in kube.list("jobs")}


def servers(kube: Kube, revision: str) -> dict[str, int]:
    """Pods of a revision, and how often each was started anew; what is on its way out serves nobody any more."""
    pods = kube.list("pods", f"diffusion-operator.io/revision={revision}")
    return {
        pod["metadata"]["name"]: sum(one["restartCount"] for one in pod["status"].get("containerStatuses", []))
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
    }


def rejected(kube: Kube) -> str | None:
    """Why the canary of this generation was taken back, once it was."""
    live_pipeline = kube.get("diffusionpipelines", "shapes")
    state = condition(live_pipeline, "RolloutComplete")
    now = live_pipeline is not None and state.get("observedGeneration") == live_pipeline["metadata"]["generation"]
    return str(state["message"]) if now and state.get("reason") == "CanaryRejected" else None


@contextmanager
def unharmed(kube: Kube) -> Iterator[None]:
    """Who serves has noticed nothing of what happens in this block: the same revision, the same pods, all requests."""
    before = stable(kube)
    pods = servers(kube, before)
    yield
    assert (stable(kube), servers(kube, before)) == (before, pods)
    assert service(kube)["spec"]["selector"]["diffusion-operator.io/revision"] == before


@contextmanager
def refusal(kube: Kube, reason: str, numbers: str = "") -> Iterator[None]:
    """The change in this block is refused for this reason, and told with these numbers."""
    with unharmed(kube):
        yield
        message = eventually(
            lambda: rejected(kube), CANARY_SECONDS, lambda: f"the canary is taken back\n{describe_namespace(kube)}"
        )
    LOG.info(message)
    assert f"{reason}:" in message
    assert not numbers or numbers in target(kube)["analysis"]["numbers"]


def has_share(kube: Kube) -> bool:
    """The canary of this generation answers requests."""
    traffic_service = service(kube)
    share = traffic_service["metadata"]["annotations"].get("diffusion-operator.io/canary", "")
    return bool(share) and "diffusion-operator.io/revision" not in traffic_service["spec"]["selector"]


def test_a_better_denoiser_is_promoted_without_a_lost_request_and_with_one_new_engine(
    served: Kube, crowd: Load, stage: Stage
) -> None:
    before, engines = stable(served), jobs(served)
    change(served, model=using("few-steps"))
    result = followed(stage.tools, served)
    assert result.end == "promoted", result.messages
    assert Image.open(io.BytesIO(result.sheet)).size[1] > LARGE * len(PROMPTS)
    assert stable(served) != before
    assert sum(name.startswith("compile-") for name in jobs(served) - engines) == 1
    assert before in target(served)["history"]
    assert not crowd.lost


def test_a_spec_that_is_edited_during_the_canary_starts_another_and_the_first_is_gone(
    served: Kube, crowd: Load
) -> None:
    before = stable(served)
    use_variable(served, "first", steps=LONG)
    eventually(lambda: has_share(served), CANARY_SECONDS, lambda: f"a share\n{describe_namespace(served)}")
    first = target(served)["canaryRevision"]
    use_variable(served, "second", steps=SHORT)
    wait_ready(served, deadline=CANARY_SECONDS)
    assert stable(served) not in {before, first}
    assert served.get("deployment", f"shapes-cpu-{first}") is None
    assert not crowd.lost


def test_a_rollback_during_the_rollback_ends_where_the_last_one_says_and_builds_nothing(
    served: Kube, crowd: Load
) -> None:
    (oldest, older), now, before = target(served)["history"], stable(served), jobs(served)
    change(served, rollout={"rollbackTo": oldest})
    eventually(lambda: servers(served, oldest), 300, lambda: describe_namespace(served))
    change(served, rollout={"rollbackTo": older})
    eventually(lambda: stable(served) == older, 300, lambda: describe_namespace(served))
    change(served, rollout={"rollbackTo": None})
    wait_ready(served)
    assert stable(served) == now
    assert jobs(served) == before
    assert not crowd.lost


def test_a_slower_canary_is_taken_back(served: Kube, visitors: Load) -> None:
    """Every step waits half a second for others who might come."""
    with refusal(served, "Latency", "p95Ratio"):
        change_good_spec(
            served, rollout={"analysis": {"maxP95Ratio": 2}}, serving={"batching": {"maxQueueDelay": "500ms"}}
        )
    assert not visitors.lost


def test_a_canary_that_fails_for_half_of_the_users_is_taken_back(served: Kube) -> None:
    """It cannot draw what the others ask for; the stable revision goes on without a failure."""
    with ExitStack() as both:
        small = both.enter_context(asking(served, count=1, pause=0.2))
        large = both.enter_context(asking(served, count=1, pause=0.5, size=LARGE))
        with refusal(served, "ErrorRatio", "canaryErrorRatio"):
            change_good_spec(served, shapes=sizes(SMALL))
        numbers = target(served)["analysis"]["numbers"]
        assert numbers["canaryErrorRatio"] > 0.1
        assert numbers["stableErrorRatio"] == 0
        assert not small.lost
        assert all("not supported" in error for error in large.lost)


def test_the_demos_users_lose_nothing_when_its_denoiser_with_wrong_colours_is_refused(
    served: Kube, stage: Stage
) -> None:
    with (
        load_generator(stage.tools, stage.images["demo-hub"], served.namespace, "shapes") as asking,
        refusal(served, "ImageQuality", "colorShift"),
    ):
        change_good_spec(served, model=using("wrong-colours"))
        result = followed(stage.tools, served)
        assert result.end == "rejected"
        assert "colors shifted" in " ".join(result.messages)
        assert result.sheet.startswith(b"\x89PNG")
        eventually(lambda: asking.stats().images > 0, 300, "the users get images")
        assert not asking.stats().error


def test_weights_that_are_no_numbers_do_not_get_past_the_build(served: Kube, visitors: Load) -> None:
    """The export runs the weights once in torch; nothing is compiled or started from them."""

    def export_message() -> str:
        live_pipeline = served.get("diffusionpipelines", "shapes")
        state = condition(live_pipeline, "EnginesReady")
        return str(state["message"]) if state.get("reason") == "InvalidWeights" else ""

    with unharmed(served):
        change_good_spec(served, model=using("nan"))
        message = eventually(export_message, CANARY_SECONDS, lambda: f"the export fails\n{describe_namespace(served)}")
    assert "not finite" in message
    assert not visitors.lost


def test_a_canary_whose_pods_never_start_is_taken_back(served: Kube, visitors: Load) -> None:
    # Engines are compiled where the target runs, so all of them have to be there before nothing runs anywhere.
    change_good_spec(served)
    wait_ready(served, deadline=CANARY_SECONDS)
    with refusal(served, "NotReady"):
        nowhere = {"name": "cpu", "nodeSelector": {"nowhere": "1"}}
        change_good_spec(served, rollout={"progressDeadline": "5s"}, targets=[nowhere])
    assert not visitors.lost


def test_a_canary_that_nobody_asks_is_never_promoted(served: Kube) -> None:
    with refusal(served, "Inconclusive", "canaryRequests"):
        change_good_spec(served, serving={"env": [{"name": "TESTED", "value": "silence"}]})
        # Not before: the image comparison has this deadline, too.
        eventually(lambda: has_share(served), CANARY_SECONDS, lambda: f"a share\n{describe_namespace(served)}")
        change(served, rollout={"analysis": {"deadline": "2s"}})


def test_after_all_that_the_next_good_spec_goes_through_without_help(served: Kube, visitors: Load) -> None:
    before = stable(served)
    change_good_spec(served, serving={"env": [{"name": "TESTED", "value": "third"}]})
    wait_ready(served, deadline=CANARY_SECONDS)
    assert stable(served) != before
    assert not target(served).get("canaryRevision")
    assert not visitors.lost
