"""Checkpoints and hubs that cannot be served are answered with a reason, no crash loop, and recover by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from examples.demo_support import hub
from tests.support.cluster.kube import Kube, Object, condition, eventually
from tests.support.cluster.library import STORE, USE_STORE
from tests.support.cluster.pipelines import describe_namespace, example, hugging_face, wait_ready
from tests.support.cluster.repositories import revision

if TYPE_CHECKING:
    from tests.support.cluster.fixtures import Ahead
    from tests.support.cluster.library import Library

NOBODY = "f" * 40
CASES = {
    "repo-not-found": ("demo/nothing", NOBODY, "RepositoryNotFound", "demo/nothing"),
    "revision-not-found": ("demo/shapes", NOBODY, "RevisionNotFound", NOBODY),
    "pickles": ("broken/pickles", "", "PickleOnly", "unet"),
    "no-vae": ("broken/no-vae", "", "MissingComponent", "vae"),
    "other-class": ("broken/other-class", "", "UnsupportedPipeline", "FluxPipeline"),
}


@pytest.fixture(scope="module")
def bad(shared_namespace: Kube) -> Kube:
    """A namespace with one pipeline per case, all on one store."""
    cases = [
        example(name, model=hugging_face(repo, commit or revision(name)), storage=USE_STORE)
        for name, (repo, commit, _reason, _words) in CASES.items()
    ]
    shared_namespace.apply(STORE, *cases)
    return shared_namespace


def engines_condition(kube: Kube, name: str, reason: str) -> Object | None:
    engines_ready = condition(kube.get("dp", name), "EnginesReady")
    return engines_ready if engines_ready.get("reason") == reason else None


@pytest.mark.usefixtures("ahead")  # begins now, and goes on beside these tests
@pytest.mark.parametrize("name", list(CASES))
def test_a_bad_checkpoint_is_named_in_condition_and_event(bad: Kube, name: str) -> None:
    _repo, _commit, reason, words = CASES[name]
    state = eventually(
        lambda: engines_condition(bad, name, reason), 300, lambda: f"{name}: {reason}\n{describe_namespace(bad)}"
    )
    assert state["status"] == "False"
    assert words in state["message"]
    assert condition(bad.get("dp", name), "Ready")["reason"] == reason
    selector = f"involvedObject.name={name},type=Warning"
    eventually(
        lambda: reason in bad.run("get", "events", "--field-selector", selector, "-o", "jsonpath={.items[*].reason}"),
        120,
        f"a Warning event {reason} on {name}",
    )


def test_a_bad_checkpoint_is_tried_once(bad: Kube) -> None:
    """Exit code 64 ends a Job at its first pod, and nobody starts another."""
    eventually(lambda: engines_condition(bad, "pickles", "PickleOnly"), 300, "pickles: PickleOnly")
    job = bad.get("dp", "pickles")["status"]["source"]["job"]  # type: ignore[index]
    pods = bad.list("pods", f"batch.kubernetes.io/job-name={job}")
    assert len(pods) == 1
    assert pods[0]["status"]["containerStatuses"][0]["restartCount"] == 0


def test_correcting_the_resource_is_all_it_takes(bad: Kube, built: Library) -> None:
    eventually(lambda: engines_condition(bad, "other-class", "UnsupportedPipeline"), 300, "other-class: refused")
    built.fill(bad)
    bad.apply(example("other-class", storage=USE_STORE))
    wait_ready(bad, "other-class")
    # Its server would keep a processor from the builds that go on.
    bad.delete("dp", "other-class", wait=False)


def test_an_unreachable_hub_is_waited_for(namespace: Kube, hub_kube: Kube, ahead: Ahead) -> None:
    ahead.fetched.result()
    hub_kube.run("scale", "deployment", hub.NAME, "--replicas=0")
    try:
        hub_kube.run("wait", "--for=delete", "pod", "-l", f"app.kubernetes.io/name={hub.NAME}", "--timeout=180s")
        namespace.apply(example())
        state = eventually(
            lambda: engines_condition(namespace, "shapes", "HubUnreachable"), 300, lambda: describe_namespace(namespace)
        )
        assert hub.NAME in state["message"]
    finally:
        hub_kube.run("scale", "deployment", hub.NAME, "--replicas=1")
        hub_kube.run("rollout", "status", f"deployment/{hub.NAME}", "--timeout=180s")

    def fetched() -> bool:
        live_pipeline = namespace.get("dp", "shapes") or {}
        return bool(((live_pipeline.get("status") or {}).get("source") or {}).get("state") == "Ready")

    eventually(
        fetched, 300, lambda: f"the checkpoint is fetched after the hub came back\n{describe_namespace(namespace)}"
    )
