"""Argo CD's health of a pipeline: the script itself runs, in Argo CD's Lua, on objects as the operator leaves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from lupa.lua51 import LuaRuntime

from diffusion_builder import errors
from diffusion_operator import conditions, naming
from diffusion_operator.conditions import ConditionType, ConditionUpdate, Reason
from tests.support.operator.fake_cluster import FakeCluster
from tests.support.operator.reconciling import build, reconcile, serve, settle
from tools.charttools.manifests import APPLICATION_HEALTH, HEALTH, health_settings

if TYPE_CHECKING:
    from pathlib import Path

REASONS = sorted({str(reason) for reason in (*conditions.Reason, *errors.Reason)})
FINE = {"Valid", "EnginesBuilt", "RepositoryBuilt", "Serving", "Complete", "Ready"}


def health(resource: dict[str, Any], script: Path = HEALTH) -> tuple[str, str]:
    """What Argo CD would show."""
    lua = LuaRuntime(register_eval=False)
    lua.globals().obj = lua.table_from(resource, recursive=True)
    for library in ("io", "os", "package", "require", "dofile", "loadfile"):
        lua.globals()[library] = None  # Argo CD's sandbox has none of them.
    answer = lua.execute(script.read_text())
    return answer["status"], answer["message"]


def recorded(reason: str, message: str) -> dict[str, Any]:
    """A pipeline whose one condition that is not true has this reason, as the operator writes it."""
    finding = ConditionUpdate(ConditionType.AVAILABLE, reason, message)
    merged = conditions.merge_conditions(
        [finding, conditions.ready_condition([finding])], {}, 3, "2026-01-01T00:00:00Z"
    )
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


def test_the_settings_for_argo_cd_hold_the_scripts() -> None:
    text = HEALTH.with_name("argocd-cm.yaml").read_text()
    assert text == health_settings()
    assert yaml.safe_load(text)["data"] == {
        "resource.customizations.health.diffusion-operator.io_DiffusionPipeline": HEALTH.read_text(),
        "resource.customizations.health.argoproj.io_Application": APPLICATION_HEALTH.read_text(),
    }


@pytest.mark.parametrize(
    ("application", "expected_health"),
    [
        ({}, ("Progressing", "")),
        ({"status": {"health": {"status": "Degraded", "message": "why"}}}, ("Degraded", "why")),
        ({"status": {"health": {"status": "Healthy"}}}, ("Healthy", "")),
    ],
)
def test_the_health_of_an_application_is_its_own(application: dict[str, Any], expected_health: tuple[str, str]) -> None:
    assert health(application, APPLICATION_HEALTH) == expected_health


def applied_by_the_root() -> list[dict[str, Any]]:
    """The objects that the app of apps syncs, in the order of their waves."""
    folder = HEALTH.parent
    include = yaml.safe_load((folder / "root.yaml").read_text())["spec"]["source"]["directory"]["include"]
    names = include.removeprefix("{").removesuffix("}.yaml").split(",")
    documents = [item for name in names for item in yaml.safe_load_all((folder / f"{name}.yaml").read_text())]
    wave = "argocd.argoproj.io/sync-wave"
    return sorted(documents, key=lambda item: int(item["metadata"].get("annotations", {}).get(wave, "0")))


def test_an_app_of_apps_syncs_the_definition_the_operator_and_the_pipelines_in_this_order() -> None:
    assert [item["metadata"]["name"] for item in applied_by_the_root()] == [
        "diffusion-operator-crds",
        "diffusion-operator",
        "diffusion-pipelines",
    ]


def test_the_application_says_which_value_it_needs() -> None:
    text = (HEALTH.parent / "operator.yaml").read_text()
    assert "`images.registry`" in text.partition("apiVersion")[0]
    assert "docs/images.md" in text.partition("apiVersion")[0]


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
