"""An event that says nothing new wakes nobody."""

import copy
from typing import Any

import pytest

from diffusion_operator import naming
from diffusion_operator.api import KIND
from diffusion_operator.handlers.event_filter import EventFilter
from diffusion_operator.reconcile import PipelineKey

ONE, TWO = PipelineKey("studio", "one"), PipelineKey("studio", "two")

JOB: dict[str, Any] = {
    "kind": "Job",
    "metadata": {
        "uid": "1",
        "resourceVersion": "7",
        "labels": {naming.STAGE: "fetch", naming.needed_by_label("one"): "true"},
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
    event_filter = EventFilter()
    joined = copy.deepcopy(JOB)
    assert event_filter.affected_keys("ADDED", JOB, [ONE]) == {ONE}
    joined["metadata"]["labels"][naming.needed_by_label("two")] = "true"
    joined["metadata"]["ownerReferences"].append({"kind": KIND, "name": "two", "uid": "b"})
    joined["metadata"] |= {"resourceVersion": "8", "managedFields": []}
    assert event_filter.affected_keys("MODIFIED", joined, [ONE, TWO]) == {TWO}
    assert not event_filter.affected_keys("MODIFIED", joined, [ONE, TWO])


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
    event_filter = EventFilter()
    event_filter.affected_keys("ADDED", JOB, [ONE])
    assert event_filter.affected_keys("MODIFIED", JOB | change, [ONE])
    assert not event_filter.affected_keys("MODIFIED", JOB | change, [ONE])


def test_a_deletion_is_always_news_and_so_is_what_comes_after_it() -> None:
    event_filter = EventFilter()
    event_filter.affected_keys("ADDED", JOB, [ONE])
    assert event_filter.affected_keys("DELETED", JOB, [ONE])
    assert event_filter.affected_keys("ADDED", JOB, [ONE])


def test_a_pipelines_own_status_is_no_news_and_its_spec_is() -> None:
    event_filter = EventFilter()
    assert event_filter.affected_keys(None, PIPELINE, [ONE])
    assert not event_filter.affected_keys("MODIFIED", PIPELINE | {"status": WRITTEN | {"observedGeneration": 2}}, [ONE])
    assert event_filter.affected_keys(
        "MODIFIED", PIPELINE | {"metadata": PIPELINE["metadata"] | {"generation": 2}}, [ONE]
    )


def test_a_lost_status_is_news() -> None:
    event_filter = EventFilter()
    event_filter.affected_keys(None, PIPELINE, [ONE])
    assert event_filter.affected_keys("MODIFIED", PIPELINE | {"status": {}}, [ONE])
