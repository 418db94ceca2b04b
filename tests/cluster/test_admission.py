"""What the API server itself answers, before any operator has seen it: nothing is created here."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from diffusion_operator.plan.dropped_fields import dropped_fields_text
from tests.support.cluster.admission import answer, with_schema
from tests.support.cluster.kube import Kube, KubectlError
from tests.support.custom_resources import ACCEPTED
from tests.support.paths import CRD
from tests.support.refused_resources import NAMES, REFUSED
from tests.support.resource_parts import pipeline
from tools.devcluster.bare import api_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def api() -> Iterator[Kube]:
    """An API server with the CRD, which is the one that the chart brings (`make check`)."""
    with api_server() as server:
        server.apply(CRD)
        yield with_schema(Kube(server.environment, "default"))


def test_the_shortest_pipeline_is_accepted_and_every_default_is_shown(api: Kube) -> None:
    text = api.run("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(pipeline()))
    spec = json.loads(text)["spec"]
    assert spec["pipelines"] == [{"task": "generate", "steps": [20]}]
    # Height and width have theirs in the contract: one that is shown would stand beside buckets.
    assert spec["shapes"] == {"batch": {"min": 1, "opt": 4, "max": 8}}
    assert spec["storage"] == {"size": "20Gi"}
    assert spec["targets"][0]["replicas"] == 1
    assert spec["engines"]["timeout"] == "1h"
    assert spec["suspend"] is False


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_served_is_accepted(api: Kube, name: str) -> None:
    assert answer(api, pipeline(**ACCEPTED[name])) == ""


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_with_the_name_of_the_field(api: Kube, name: str) -> None:
    refused = REFUSED[name]
    objection = answer(api, pipeline(**refused.spec))
    assert refused.field in objection
    assert refused.words in objection


def test_a_name_that_services_cannot_have_is_refused(api: Kube) -> None:
    for name, words in NAMES.items():
        objection = answer(api, pipeline(name))
        assert (words in objection) if words else (objection == "")


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


@pytest.mark.parametrize(
    ("client", "words"),
    [
        (("create", "--validate=strict"), 'unknown field "spec.rollouts", unknown field "spec.serving.imag"'),
        (("apply", "--server-side", "--validate=warn"), ".spec.rollouts: field not declared in schema"),
        (("apply", "--server-side", "--validate=ignore"), ".spec.rollouts: field not declared in schema"),
    ],
)
def test_clients_that_validate_refuse_an_unknown_field(api: Kube, client: tuple[str, ...], words: str) -> None:
    document = pipeline("unknown", rollouts={}, serving={"imag": "x"})
    with pytest.raises(KubectlError, match=re.escape(words)):
        api.run(*client, "--dry-run=server", "-f", "-", stdin=json.dumps(document))


@pytest.mark.parametrize("validation", ["warn", "ignore"])
def test_other_clients_lose_an_unknown_field_and_only_kubectl_s_annotation_knows(api: Kube, validation: str) -> None:
    document = pipeline("unknown", rollouts={}, serving={"imag": "x"})
    arguments = ("apply", f"--validate={validation}", "--dry-run=server", "--show-managed-fields", "-o", "json")
    answered = json.loads(api.run(*arguments, "-f", "-", stdin=json.dumps(document)))
    annotations = answered["metadata"].pop("annotations")
    assert "rollouts" not in json.dumps(answered)
    assert answered["metadata"]["managedFields"]
    assert "spec.serving.imag, spec.rollouts" in dropped_fields_text(annotations)


def test_kubectl_get_tells_the_story_in_columns(api: Kube) -> None:
    name = "admission-columns"
    api.run("create", "-f", "-", stdin=json.dumps(pipeline(name)))
    try:
        header = api.run("get", "dp", name, "-o", "wide").splitlines()[0]
    finally:
        api.delete("dp", name)
    assert header.split() == ["NAME", "READY", "REASON", "ENGINES", "TARGETS", "CANARY", "AGE", "MESSAGE"]
