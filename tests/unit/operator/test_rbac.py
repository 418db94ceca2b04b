"""The chart's role grants exactly what the operator does."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffusion_operator.api import PLURAL
from diffusion_operator.handlers.controller import WATCHED_KINDS
from diffusion_operator.leader_election import LeaderElection, lease_reference
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster
from tests.support.operator.reconciling import OTHER_REVISION, build, serve, settle
from tests.support.paths import ROOT

TEMPLATES = ROOT / "charts" / "diffusion-operator" / "templates"
KEDA = {"serverAddress": "http://prometheus:9090"}


def granted(name: str) -> set[tuple[str, str]]:
    """Pairs of resource and verb in a list of rules of the chart."""
    text = (TEMPLATES / "_helpers.tpl").read_text()
    match = re.search(rf'define "{re.escape(name)}" -}}}}\n(.*?){{{{- end', text, flags=re.DOTALL)
    assert match is not None
    rules: list[dict[str, Any]] = yaml.safe_load(match[1])
    return {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}


def live_a_full_life(cluster: FakeCluster) -> None:
    """Everything that can happen to pipelines, so that every kind of request is made."""
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "common", "namespace": NAMESPACE}, "spec": {}}
    asyncio.run(cluster.create(claim))
    for name in ("one", "two"):
        cluster.apply_pipeline(name, storage={"claimName": "common"})
        serve(cluster, name)
    cluster.apply_pipeline()
    build(cluster)
    for scaling in ({"maxReplicas": 3}, {"maxReplicas": 3, "provider": "keda", "keda": KEDA}, None):
        automatic = {"autoscaling": scaling} if scaling else {}
        cluster.apply_pipeline(targets=[{"name": "cpu", **automatic}, {"name": "spare"}])
        serve(cluster)
    cluster.apply_pipeline(model={"source": {"huggingFace": {"repo": "demo/shapes", "revision": OTHER_REVISION}}})
    serve(cluster)
    cluster.apply_pipeline(rollout={"strategy": "RollingUpdate", "traffic": {"gateway": {"name": "web"}}})
    serve(cluster)
    scaled = {"auth": {"type": "None"}, "autoscaling": {"maxReplicas": 3}, "gateway": {"name": "web"}}
    for api in (scaled, {**scaled, "autoscaling": None, "networkPolicy": False, "replicas": 1}, None):
        cluster.apply_pipeline(api=api)
        serve(cluster)
    cluster.apply_pipeline(suspend=True)
    settle(cluster)


def test_no_more_and_no_less_is_granted_than_used() -> None:
    cluster = FakeCluster()
    live_a_full_life(cluster)
    plurals = [PLURAL, *(plural for _, _, plural in WATCHED_KINDS.values())]
    watched = {(plural, verb) for plural in plurals for verb in ("list", "watch")}
    assert granted("diffusion-operator.rules") == cluster.verbs | watched


def test_the_election_needs_no_more_and_no_less_than_is_granted() -> None:
    cluster = FakeCluster()
    election = LeaderElection(cluster, lease_reference(NAMESPACE), "first")
    assert asyncio.run(election.try_acquire_or_renew())
    assert asyncio.run(election.try_acquire_or_renew())
    asyncio.run(election.release())
    assert granted("diffusion-operator.leaseRules") == cluster.verbs


@pytest.mark.parametrize(
    "template", sorted(path for path in TEMPLATES.rglob("*") if path.is_file()), ids=lambda path: path.name
)
def test_no_rule_has_a_wildcard_or_touches_secrets(template: Path) -> None:
    text = template.read_text()
    assert not re.search(r"(verbs|resources|apiGroups):.*\*", text)
    assert not re.search(r"resources:.*secrets", text)
