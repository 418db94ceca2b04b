"""The demo tells what the status says, and answers bad input in one sentence."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from diffusion_contract.spec import DiffusionPipelineSpec
from examples.client import Request
from examples.demo_hub import revision_of
from examples.demo_support import hub
from examples.demo_support.board import Board, Row
from examples.demo_support.cluster import exported
from examples.demo_support.errors import DemoError
from examples.demo_support.follow import PATIENCE_SECONDS, ProblemTimer, condition, engines, problem_of, rows
from examples.demo_support.gpu import GPU_NODES, GpuChoice, choose_gpu, on_gpu
from examples.demo_support.install import CHECKPOINT, PIPELINE_FILE, check_revision, split_reference
from examples.demo_support.settings import IMAGE_VARIABLES, ROOT, TENSORRT_VARIABLES, TIERS, from_environment
from tools.devcluster.gpus import HostGpus
from tools.devcluster.nodes import parse_nodes

OWN = Path("/cache/devcluster/kubeconfig")
NOW = datetime(2026, 1, 2, 3, 4, 30, tzinfo=UTC)
STATUS = {
    "source": {"state": "Ready", "seconds": 1.5, "cached": True},
    "components": {
        "denoiser": {
            "state": "Running",
            "startedAt": "2026-01-02T03:04:05Z",
            "skus": {"cpu": {"state": "Waiting", "message": "waits for the export"}},
        },
        "vae_decoder": {
            "state": "Ready",
            "seconds": 4.0,
            "sizeBytes": 2_000_000,
            "skus": {"cpu": {"state": "Ready", "cached": False, "startedAt": "2026-01-02T03:04:10Z"}},
        },
    },
    "targets": [{"name": "cpu", "repository": {"state": "Waiting"}, "replicas": 1, "readyReplicas": 0}],
    "conditions": [{"type": "Ready", "status": "False", "reason": "Exporting", "observedGeneration": 3}],
}


def test_every_stage_of_the_status_is_a_row_with_its_state_and_seconds() -> None:
    rows_by_name = {row.name: row for row in rows(STATUS, NOW)}
    assert [row.state for row in rows_by_name.values()] == [
        "Ready",
        "Running",
        "Waiting",
        "Ready",
        "Ready",
        "Waiting",
        "Waiting",
    ]
    assert rows_by_name["export  denoiser"].seconds == 25
    assert rows_by_name["export  vae_decoder"].detail == "2.0 MB"
    assert rows_by_name["fetch checkpoint"].detail == "from the store"
    assert rows_by_name["compile denoiser · cpu"].detail == "waits for the export"


def test_components_come_in_the_order_of_the_data_flow_and_unknown_ones_last() -> None:
    names = ["zzz", "vae_decoder", "denoiser", "text_encoder"]
    status = {"components": {name: {"state": "Waiting"} for name in names}}
    assert [row.name.split()[-1] for row in rows(status, NOW)] == ["text_encoder", "denoiser", "vae_decoder", "zzz"]


def test_an_empty_status_is_no_row_and_no_error() -> None:
    assert rows({}, NOW) == []


def test_a_condition_of_an_older_generation_says_nothing() -> None:
    assert condition(STATUS, "Ready", 3)["reason"] == "Exporting"
    assert condition(STATUS, "Ready", 4) == {}


def _status(reason: str, state: str) -> dict[str, object]:
    condition = {"type": "Ready", "status": "False", "reason": reason, "message": "m", "observedGeneration": 1}
    return {"conditions": [condition], "components": {"denoiser": {"state": state}}}


def test_what_is_under_way_is_no_trouble_and_what_is_wrong_is() -> None:
    assert problem_of(_status("Exporting", "Running"), 1) == ""
    assert problem_of(_status("RepositoryNotFound", "Failed"), 1) == "RepositoryNotFound: m"
    assert problem_of(_status("RepositoryNotFound", "Failed"), 2) == ""


def test_waiting_for_a_processor_is_trouble_only_when_no_build_uses_it() -> None:
    assert problem_of(_status("Unschedulable", "Running"), 1) == ""
    assert problem_of(_status("Unschedulable", "Pending"), 1) == "Unschedulable: m"


def test_only_trouble_that_lasts_ends_the_demo() -> None:
    timer = ProblemTimer("No. ", "Look.")
    timer.check("a", 0)
    timer.check("b", PATIENCE_SECONDS + 1)
    timer.check("b", 2 * PATIENCE_SECONDS)
    timer.reset()
    timer.check("b", 3 * PATIENCE_SECONDS)
    with pytest.raises(DemoError, match=r"No\. b\nLook\."):
        timer.check("b", 4 * PATIENCE_SECONDS + 1)


def test_only_engines_of_this_run_count_as_built() -> None:
    assert engines(STATUS, datetime(2026, 1, 2, 3, 4, 0, tzinfo=UTC)) == (1, 1)
    assert engines(STATUS, NOW) == (0, 2)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"STEPS": "7"}, "4 or 20"),
        ({"STEPS": "many"}, "whole number"),
        ({"SEED": "-1"}, "0 upwards"),
        ({"SIZE": "100"}, "multiple of 8 from 64 to 128"),
        ({"KUBECONFIG": "/home/me/.kube/config"}, "REGISTRY"),
        ({"KUBECONFIG": "/home/me/.kube/config", "HUB_IMAGE": "r/hub:1"}, "SERVING_IMAGE"),
    ],
)
def test_bad_input_is_answered_with_what_to_do(variables: dict[str, str], words: str) -> None:
    with pytest.raises(DemoError, match=words):
        from_environment(variables, OWN)


def test_the_embedded_clusters_own_kubeconfig_means_the_embedded_cluster() -> None:
    assert from_environment({"KUBECONFIG": str(OWN)}, OWN).kubeconfig is None


def test_a_cluster_of_your_own_with_all_images_builds_none() -> None:
    variables = {key: f"registry/{name}:1" for name, key in IMAGE_VARIABLES.items()}
    settings = from_environment({"KUBECONFIG": "/k", **variables}, OWN)
    assert settings.images["triton"] == "registry/triton:1"


def test_a_machine_without_a_gpu_runs_the_demo_on_the_cpu_and_says_nothing() -> None:
    variables = {key: f"registry/{name}:1" for name, key in TENSORRT_VARIABLES.items()}
    assert choose_gpu(from_environment(variables, OWN), lambda: None) == GpuChoice()


def test_the_machines_gpu_is_used_where_the_images_with_tensorrt_are_named() -> None:
    variables = {key: f"registry/{name}:1" for name, key in TENSORRT_VARIABLES.items()}
    settings = from_environment(variables, OWN)

    assert choose_gpu(settings, lambda: HostGpus("NVIDIA-H200", 1)) == GpuChoice("NVIDIA-H200")
    assert settings.tensorrt_images["tensorrt.builder"] == "registry/tensorrt.builder:1"


def test_a_gpu_that_is_not_used_is_named_with_what_is_missing() -> None:
    settings = from_environment({"TENSORRT_SERVING_IMAGE": "registry/server:1"}, OWN)

    choice = choose_gpu(settings, lambda: HostGpus("NVIDIA-H200", 1))

    assert not choice.product
    assert "NVIDIA-H200 is not used: set TENSORRT_BUILDER_IMAGE (" in choice.reason


def test_the_machines_gpu_is_not_looked_for_when_the_cluster_is_another_one() -> None:
    variables = {key: f"registry/{name}:1" for name, key in (IMAGE_VARIABLES | TENSORRT_VARIABLES).items()}
    settings = from_environment({"KUBECONFIG": "/k", **variables}, OWN)

    assert choose_gpu(settings, lambda: HostGpus("NVIDIA-H200", 1)) == GpuChoice()


def test_the_pipeline_for_a_gpu_is_what_the_api_accepts_and_differs_in_target_and_precision_only() -> None:
    document = yaml.safe_load(PIPELINE_FILE.read_text())

    changed = on_gpu(document, "NVIDIA-H200")

    spec = DiffusionPipelineSpec.model_validate(changed["spec"])
    assert [target.gpu.product for target in spec.targets if target.gpu is not None] == ["NVIDIA-H200"]
    assert {key for key in changed["spec"] if changed["spec"][key] != document["spec"].get(key)} == {
        "precision",
        "targets",
    }


def test_the_nodes_file_of_the_demo_gives_a_node_the_machines_gpus() -> None:
    (node,) = parse_nodes(GPU_NODES.read_text(), str(GPU_NODES))
    assert node.host_gpus


def test_shell_exports_are_read() -> None:
    assert exported("export A='b c'\nexport PATH=/x:/y # comment\n") == {"A": "b c", "PATH": "/x:/y"}


def test_an_image_without_a_tag_is_rejected() -> None:
    assert split_reference("127.0.0.1:15000/a:b") == ("127.0.0.1:15000/a", "b")
    with pytest.raises(DemoError, match="no tag"):
        split_reference("127.0.0.1:15000/a")


def test_the_example_pipeline_is_what_the_api_accepts_and_serves_the_demos_tiers() -> None:
    document = yaml.safe_load(PIPELINE_FILE.read_text())
    spec = DiffusionPipelineSpec.model_validate(document["spec"])
    assert tuple(spec.pipelines[0].steps) == TIERS


def test_the_example_pipeline_names_the_revision_of_the_checkpoint_in_this_checkout() -> None:
    document = yaml.safe_load(PIPELINE_FILE.read_text())
    check_revision(document["spec"]["model"]["source"]["huggingFace"]["revision"], CHECKPOINT)
    with pytest.raises(DemoError, match=r"0{40}"):
        check_revision("0" * 40, CHECKPOINT)


def test_the_hub_lives_with_the_strictest_pod_security_level() -> None:
    namespace, deployment, _ = yaml.safe_load(hub.manifest("demo", "image:1"))["items"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_request_sends_only_what_is_set() -> None:
    assert list(Request(prompt="x").inputs()) == ["prompt"]
    assert set(Request(prompt="x", seed=0, width=64).inputs()) == {
        "prompt",
        "seed",
        "width",
    }


def test_without_a_terminal_each_change_of_a_state_is_one_line() -> None:
    output = io.StringIO()
    with Board(Console(file=output, width=120)) as board:
        board.update([Row(name="a", state="Waiting")])
        board.update([Row(name="a", state="Waiting", detail="still")])
        board.update([Row(name="a", state="Ready", seconds=1.25)])
    lines = [line.split() for line in output.getvalue().splitlines()]
    assert lines == [["a", "Waiting"], ["a", "Ready", "1.2", "s"]]


def test_a_step_that_fails_is_shown_as_failed() -> None:
    board = Board(Console(file=(output := io.StringIO()), width=120))
    with pytest.raises(DemoError), board.task("cluster"):
        raise DemoError("no")
    assert "Failed" in output.getvalue()


def test_the_documentation_names_the_denoisers_by_the_revisions_that_the_hub_gives_them() -> None:
    pages = {
        "few-steps": "docs/rollouts.md",
        "wrong-colours": "docs/rollouts.md",
        "embedded-guidance": "examples/README.md",
    }
    for name, page in pages.items():
        assert revision_of(ROOT / "examples" / "demo-unets" / name) in (ROOT / page).read_text()
