"""Argo CD's health of a pipeline: the script itself runs, in Argo CD's Lua, on objects as the operator leaves them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from lupa.lua51 import LuaRuntime

from diffusion_builder import errors
from diffusion_operator import conditions, naming
from diffusion_operator.conditions import ConditionType, ConditionUpdate, Reason
from tests.support.operator.fake_cluster import FakeCluster
from tests.support.operator.reconciling import build, reconcile, serve, settle
from tools.charttools.manifests import HEALTH, health_settings

REASONS = sorted({str(reason) for reason in (*conditions.Reason, *errors.Reason)})
FINE = {"Valid", "EnginesBuilt", "RepositoryBuilt", "Serving", "Complete", "Ready"}


def health(pipeline: dict[str, Any]) -> tuple[str, str]:
    """What Argo CD would show."""
    lua = LuaRuntime(register_eval=False)
    lua.globals().obj = lua.table_from(pipeline, recursive=True)
    for library in ("io", "os", "package", "require", "dofile", "loadfile"):
        lua.globals()[library] = None  # Argo CD's sandbox has none of them.
    answer = lua.execute(HEALTH.read_text())
    return answer["status"], answer["message"]


def recorded(reason: str, message: str) -> dict[str, Any]:
    """A pipeline whose one condition that is not true has this reason, as the operator writes it."""
    finding = ConditionUpdate(ConditionType.AVAILABLE, reason, message)
    merged = conditions.merge_conditions([finding, conditions.ready_condition([finding])], {}, 3, "2026-01-01T00:00:00Z")
    status = {"conditions": [item.model_dump(mode="json", by_alias=True) for item in merged]}
    return {"metadata": {"name": "shapes", "generation": 3}, "status": status}


def expected(reason: str) -> str:
    if reason == Reason.SUSPENDED:
        return "Suspended"
    return "Progressing" if reason in conditions.PROGRESS_REASONS else "Degraded"


@pytest.mark.parametrize("reason", [reason for reason in REASONS if reason not in FINE])
def test_every_reason_of_a_pipeline_that_is_not_ready_has_the_right_health_and_its_message(reason: str) -> None:
    assert health(recorded(reason, "what to do")) == (expected(reason), f"{reason}: what to do")


def test_a_whole_life_is_healthy_only_when_it_serves() -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline()
    assert health(cluster.pipeline())[0] == "Progressing"
    reconcile(cluster)
    assert health(cluster.pipeline())[0] == "Progressing"
    build(cluster)
    assert health(cluster.pipeline())[0] == "Progressing"
    serve(cluster)
    assert health(cluster.pipeline())[0] == "Healthy"
    cluster.apply_pipeline(suspend=True)
    settle(cluster)
    assert health(cluster.pipeline())[0] == "Suspended"


def test_what_was_ready_before_the_spec_changed_is_on_the_way() -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline()
    serve(cluster)
    pipeline = cluster.pipeline()
    changed = {**pipeline, "metadata": {**pipeline["metadata"], "generation": pipeline["metadata"]["generation"] + 1}}
    assert health(changed) == ("Progressing", "The operator has not looked at this generation yet.")


def test_the_settings_for_argo_cd_hold_the_script() -> None:
    text = HEALTH.with_name("argocd-cm.yaml").read_text()
    assert text == health_settings(HEALTH.read_text())
    [(key, script)] = yaml.safe_load(text)["data"].items()
    assert key == "resource.customizations.health.diffusion-operator.io_DiffusionPipeline"
    assert script == HEALTH.read_text()


def test_what_the_operator_makes_carries_no_label_of_argo_cd() -> None:
    tracking = "app.kubernetes.io/instance"
    cluster = FakeCluster()
    cluster.apply_pipeline()
    cluster.pipeline()["metadata"]["labels"] = {tracking: "studio", "argocd.argoproj.io/instance": "studio"}
    cluster.pipeline()["metadata"]["annotations"] = {"argocd.argoproj.io/tracking-id": "studio:shapes"}
    serve(cluster)
    objects = [item for (kind, _), item in cluster.objects.items() if kind not in {"DiffusionPipeline", "Pod"}]
    labels = [item["metadata"].get("labels", {}) for item in objects]
    notes = [item["metadata"].get("annotations", {}) for item in objects]
    templates = [item.get("spec", {}).get("template", {}).get("metadata", {}).get("labels", {}) for item in objects]
    assert len(objects) > 10
    assert any(naming.PIPELINE in item for item in templates)
    carried = {key for item in (*labels, *notes, *templates) for key in item}
    assert not {key for key in carried if key == tracking or "argoproj" in key}
