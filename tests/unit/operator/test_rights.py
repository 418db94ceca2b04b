"""What a role does not allow is found before anything is watched, and said."""

import asyncio
import logging
from collections.abc import Iterable
from itertools import repeat
from typing import Any

import pytest

from diffusion_operator import rights
from diffusion_operator.errors import UnavailableError
from diffusion_operator.kube_client import Reference, RejectedError
from diffusion_operator.object_cache import SETTLED_KINDS, CacheReader, ObjectCache
from diffusion_operator.rights import Restrictions, read_restrictions
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster

JsonObject = dict[str, Any]
Right = tuple[str, str, str]


class ReviewingCluster(FakeCluster):
    """Answers questions about rights; a right is (verb, resource, namespace)."""

    def __init__(self, *refusals: Right, errors: Iterable[Exception] = ()) -> None:
        super().__init__()
        self.refusals = refusals
        self.errors = iter(errors)

    async def request(self, method: str, path: str, *arguments: Any, **options: Any) -> JsonObject | None:  # noqa: ANN401
        if not path.endswith("/selfsubjectaccessreviews"):
            return await super().request(method, path, *arguments, **options)
        for error in self.errors:
            raise error
        attributes = arguments[0]["spec"]["resourceAttributes"]
        right = (attributes["verb"], attributes["resource"], attributes["namespace"])
        assert (attributes["group"] == "policy") == (attributes["resource"] == "poddisruptionbudgets")
        return {"status": {"allowed": right not in self.refusals}}


def restrictions(cluster: FakeCluster, *namespaces: str) -> Restrictions:
    return asyncio.run(read_restrictions(cluster, namespaces))


def test_a_role_of_this_version_has_no_restrictions(caplog: pytest.LogCaptureFixture) -> None:
    assert restrictions(ReviewingCluster()) == Restrictions()
    assert not caplog.records


def test_where_nobody_may_ask_everything_is_tried() -> None:
    refusals = [("watch", "jobs", ""), ("list", "jobs", "")]
    assert restrictions(ReviewingCluster(*refusals, errors=repeat(RejectedError("forbidden")))) == Restrictions()


def test_an_api_server_that_does_not_answer_is_asked_again_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rights, "PAUSES_SECONDS", (0.0, 0.0))
    lacking, error = ("watch", "networkpolicies", ""), UnavailableError("no answer")
    assert restrictions(ReviewingCluster(lacking, errors=[error])).unwatched == {"NetworkPolicy"}
    assert restrictions(ReviewingCluster(lacking, errors=repeat(error))) == Restrictions()


def test_what_an_older_role_lacks_is_named_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    refusals = [
        ("watch", "poddisruptionbudgets", ""),
        ("list", "networkpolicies", ""),
        ("watch", "networkpolicies", ""),
    ]
    with caplog.at_level(logging.WARNING):
        restricted = restrictions(ReviewingCluster(*refusals))
    assert restricted.unlisted == {"NetworkPolicy"}
    assert restricted.unwatched == {"NetworkPolicy", "PodDisruptionBudget"}
    assert "list networkpolicies, watch networkpolicies, watch poddisruptionbudgets" in caplog.text
    assert "helm upgrade" in caplog.text


def test_a_right_counts_only_when_every_watched_namespace_gives_it() -> None:
    cluster = ReviewingCluster(("watch", "poddisruptionbudgets", "b"))
    assert restrictions(cluster, "a") == Restrictions()
    assert restrictions(cluster, "a", "b").unwatched == {"PodDisruptionBudget"}


@pytest.mark.parametrize("resource", ["jobs", "services", "diffusionpipelines"])
def test_without_what_every_pipeline_needs_the_operator_does_not_start(resource: str) -> None:
    with pytest.raises(UnavailableError, match=f"does not allow: watch {resource}.*helm upgrade"):
        restrictions(ReviewingCluster(("watch", resource, "")))


def test_kinds_without_events_are_listed_and_those_that_cannot_be_listed_are_not() -> None:
    cluster, cache = FakeCluster(), ObjectCache()
    budget = {"kind": "PodDisruptionBudget", "metadata": {"name": "shapes", "namespace": NAMESPACE, "uid": "1"}}
    cluster.objects["PodDisruptionBudget", "shapes"] = budget
    cache.trust(60.0)
    reader = CacheReader(cluster, cache, SETTLED_KINDS)
    selector = "diffusion-operator.io/pipeline=shapes"
    budget["metadata"]["labels"] = {"diffusion-operator.io/pipeline": "shapes"}  # type: ignore[index]
    budgets = Reference("PodDisruptionBudget", NAMESPACE)
    assert asyncio.run(reader.select(budgets, selector)) == []
    cache.unwatched = frozenset({"PodDisruptionBudget"})
    assert [item["metadata"]["name"] for item in asyncio.run(reader.select(budgets, selector))] == ["shapes"]
    cache.unlisted = cache.unwatched
    assert asyncio.run(reader.select(budgets, selector)) == []
