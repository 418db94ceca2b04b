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
PIPELINE: dict[str, Any] = {
    "kind": KIND,
    "metadata": {"uid": "2", "generation": 1, "resourceVersion": "1"},
    "spec": {},
    "status": {},
}


def test_another_pipeline_that_joins_a_job_is_no_news() -> None:
    news, joined = News(), copy.deepcopy(JOB)
    assert news.is_new("ADDED", JOB)
    joined["metadata"]["labels"][naming.membership("two")] = "true"
    joined["metadata"]["ownerReferences"].append({"kind": KIND, "name": "two", "uid": "b"})
    joined["metadata"] |= {"resourceVersion": "8", "managedFields": []}
    assert not news.is_new("MODIFIED", joined)


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
    news = News()
    news.is_new("ADDED", JOB)
    assert news.is_new("MODIFIED", JOB | change)
    assert not news.is_new("MODIFIED", JOB | change)


def test_a_deletion_is_always_news_and_so_is_what_comes_after_it() -> None:
    news = News()
    news.is_new("ADDED", JOB)
    assert news.is_new("DELETED", JOB)
    assert news.is_new("ADDED", JOB)


def test_a_pipelines_own_status_is_no_news_and_its_spec_is() -> None:
    news = News()
    assert news.is_new(None, PIPELINE)
    assert not news.is_new("MODIFIED", PIPELINE | {"status": {"observedGeneration": 1}})
    assert news.is_new("MODIFIED", PIPELINE | {"metadata": PIPELINE["metadata"] | {"generation": 2}})
