"""Fields that the API server dropped are named where kubectl left a trace of them."""

import json
from typing import Any

import pytest

from diffusion_operator.plan.dropped_fields import LAST_APPLIED, dropped_fields_text
from tests.support.operator.fake_cluster import FakeCluster, minimal_spec
from tests.support.operator.reconciling import reconcile, settle


def applied(**fields: Any) -> dict[str, str]:  # noqa: ANN401 - any field of a spec
    """The annotation that client-side apply writes."""
    return {LAST_APPLIED: json.dumps({"spec": minimal_spec() | fields})}


@pytest.mark.parametrize(
    ("annotations", "fields"),
    [
        (applied(rollouts={}), "spec.rollouts"),
        (applied(serving={"imag": "x"}, targets=[{"name": "a", "gpus": 1}]), "spec.targets[0].gpus, spec.serving.imag"),
        (applied(rollouts={}, precision="float8"), "spec.rollouts"),
        (applied(rollouts=None), ""),
        (applied(), ""),
        ({}, ""),
        ({LAST_APPLIED: ""}, ""),
        ({LAST_APPLIED: "not json"}, ""),
        ({LAST_APPLIED: "[]"}, ""),
        ({LAST_APPLIED: '{"spec": 3}'}, ""),
    ],
)
def test_the_text_names_unknown_fields_and_nothing_else(annotations: dict[str, str], fields: str) -> None:
    text = dropped_fields_text(annotations)
    assert (f"dropped them: {fields}." in text) if fields else (text == "")


def test_the_condition_names_them_and_one_warning_is_sent() -> None:
    cluster = FakeCluster()
    pipeline = cluster.apply_pipeline()
    pipeline["metadata"]["annotations"] = applied(rollouts={})
    settle(cluster)
    reconcile(cluster)
    accepted = cluster.condition("Accepted")
    assert accepted["status"] == "True"
    assert "spec.rollouts" in accepted["message"]
    events = [cluster.objects["Event", name] for name in cluster.names("Event")]
    assert [event["type"] for event in events if event["reason"] == "UnknownFields"] == ["Warning"]
