"""An event that says nothing new wakes nobody."""

import copy
from typing import Any

import pytest

from diffusion_operator import naming
from diffusion_operator.api import KIND
from diffusion_operator.handlers.news import News

JOB: dict[str, Any] = {
    "kind": "Job",
    "metadata": {
        "uid": "1",
        "resourceVersion": "7",
        "labels": {naming.STAGE: "fetch", naming.membership("one"): "true"},
        "ownerReferences": [{"kind": KIND, "name": "one", "uid": "a"}],
        "managedFields": [{"manager": "x"}],
    },
    "spec": {"suspend": False},
    "status": {"active": 1},
}
WRITTEN: dict[str, Any] = {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]}
PIPELINE: dict[str, Any] = {
    "kind": KIND,
    "metadata": {"uid": "2", "generation": 1, "resourceVersion": "1"},
    "spec": {},
    "status": WRITTEN,
}


def test_a_pipeline_that_joins_a_job_wakes_itself_and_nobody_else() -> None:
    news: News[str] = News()
    joined = copy.deepcopy(JOB)
    assert news.concerned("ADDED", JOB, ["one"]) == {"one"}
    joined["metadata"]["labels"][naming.membership("two")] = "true"
    joined["metadata"]["ownerReferences"].append({"kind": KIND, "name": "two", "uid": "b"})
    joined["metadata"] |= {"resourceVersion": "8", "managedFields": []}
    assert news.concerned("MODIFIED", joined, ["one", "two"]) == {"two"}
    assert not news.concerned("MODIFIED", joined, ["one", "two"])


@pytest.mark.parametrize(
    "change",
    [
        {"status": {"active": 0, "conditions": [{"type": "Complete"}]}},
        {"spec": {"suspend": True}},
        {"metadata": JOB["metadata"] | {"annotations": {naming.RESULT: "{}"}}},
        {"metadata": JOB["metadata"] | {"deletionTimestamp": "now"}},
    ],
    ids=["status", "spec", "result", "deletion"],
)
def test_what_a_pass_looks_at_is_news(change: dict[str, Any]) -> None:
    news: News[str] = News()
    news.concerned("ADDED", JOB, ["one"])
    assert news.concerned("MODIFIED", JOB | change, ["one"])
    assert not news.concerned("MODIFIED", JOB | change, ["one"])


def test_a_deletion_is_always_news_and_so_is_what_comes_after_it() -> None:
    news: News[str] = News()
    news.concerned("ADDED", JOB, ["one"])
    assert news.concerned("DELETED", JOB, ["one"])
    assert news.concerned("ADDED", JOB, ["one"])


def test_a_pipelines_own_status_is_no_news_and_its_spec_is() -> None:
    news: News[str] = News()
    assert news.concerned(None, PIPELINE, ["one"])
    assert not news.concerned("MODIFIED", PIPELINE | {"status": WRITTEN | {"observedGeneration": 2}}, ["one"])
    assert news.concerned("MODIFIED", PIPELINE | {"metadata": PIPELINE["metadata"] | {"generation": 2}}, ["one"])


def test_a_lost_status_is_news() -> None:
    news: News[str] = News()
    news.concerned(None, PIPELINE, ["one"])
    assert news.concerned("MODIFIED", PIPELINE | {"status": {}}, ["one"])
