"""What a change builds, counted in Jobs: no more than what it changed, once for all pipelines on a store."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.support.operator.fake_cluster import NAMESPACE, REVISION, FakeCluster
from tests.support.operator.reconciling import build, reconcile, serve, settle

OTHER = "f" * 40
STAGE, COMPONENT = "diffusion-operator.io/stage", "diffusion-operator.io/component"
TARGETS: list[dict[str, Any]] = [
    {"name": "l4", "gpu": {"product": "NVIDIA-L4"}},
    {"name": "a10g", "gpu": {"product": "NVIDIA-A10G"}},
    {"name": "cpu"},
]


def hub(revision: str, repo: str = "demo/shapes") -> dict[str, Any]:
    return {"huggingFace": {"repo": repo, "revision": revision}}


def model(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of spec.model
    return {"source": hub(REVISION), **fields}


def common_store() -> FakeCluster:
    cluster = FakeCluster()
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "common", "namespace": NAMESPACE}, "spec": {}}
    asyncio.run(cluster.create(claim))
    return cluster


def build_jobs(cluster: FakeCluster, name: str = "shapes") -> Counter[str]:
    """Builds until nothing is left to build; which Jobs were new, by stage and component."""
    before = set(cluster.names("Job"))
    settle(cluster, name)
    new = set(cluster.names("Job")) - before
    while cluster.succeed_jobs():
        settle(cluster, name)
        new |= set(cluster.names("Job")) - before
    labels = [cluster.objects["Job", job]["metadata"]["labels"] for job in new]
    return Counter(" ".join(filter(None, (item[STAGE], item.get(COMPONENT)))) for item in labels)


def test_two_pipelines_with_the_same_text_encoder_build_it_once() -> None:
    cluster = common_store()
    for name, revision in (("shapes", REVISION), ("other", OTHER)):
        cluster.apply_pipeline(name, storage={"claimName": "common"}, model={"source": hub(revision)})
    build_jobs(cluster)
    # The other checkpoint differs in its UNet alone.
    assert build_jobs(cluster, "other") == {
        "fetch": 1,
        "export denoiser": 1,
        "compile denoiser": 1,
        "assemble": 1,
        "parity": 1,
    }


@pytest.mark.parametrize(
    "change",
    [{"source": hub(OTHER)}, model(components={"denoiser": {"source": hub(OTHER, "demo/unet")}})],
    ids=["another revision", "an override"],
)
def test_another_unet_builds_one_engine_per_sku_and_nothing_else(change: dict[str, Any]) -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline(targets=TARGETS)
    build(cluster)
    cluster.apply_pipeline(targets=TARGETS, model=change)
    assert build_jobs(cluster) == {
        "fetch": 1,
        "export denoiser": 1,
        "compile denoiser": 3,
        "assemble": 3,
        "parity": 3,
    }


def test_another_safety_checker_builds_it_and_nothing_else() -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline(model=model(safetyChecker={"source": hub(REVISION, "demo/checker")}))
    build_jobs(cluster)
    cluster.apply_pipeline(model=model(safetyChecker={"source": hub(OTHER, "demo/checker")}))
    assert build_jobs(cluster) == {
        "fetch": 1,
        "export safety_checker": 1,
        "compile safety_checker": 1,
        "assemble": 1,
        "parity": 1,
    }


def test_an_image_encoder_of_its_own_rebuilds_what_reads_it_and_nothing_else() -> None:
    cluster = FakeCluster()
    adapter = {"source": hub(REVISION, "demo/adapter")}
    cluster.apply_pipeline(model=model(ipAdapter=adapter))
    build_jobs(cluster)
    cluster.apply_pipeline(model=model(ipAdapter=adapter | {"imageEncoder": {"source": hub(OTHER, "demo/vision")}}))
    new = build_jobs(cluster)
    assert {name for name in new if name.startswith("export")} == {"export denoiser", "export image_encoder"}
    assert new["fetch"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"scheduler": {"type": "Euler"}},
        {"pipelines": [{"task": "generate", "steps": [4, 50]}]},
        {"serving": {"batching": {"maxQueueDelay": "5ms", "preferredBatchSizes": [4]}}},
        {"targets": [{**target, "replicas": 3} for target in TARGETS]},
        {"targets": [{**target, "labels": {"team": "drawing"}} for target in TARGETS]},
        {"engines": {"labels": {"team": "drawing"}}},
    ],
    ids=["scheduler", "tiers", "batching", "replicas", "labels", "labels of Jobs"],
)
def test_what_is_no_part_of_an_engine_builds_none(change: dict[str, Any]) -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline(targets=TARGETS)
    build(cluster)
    cluster.apply_pipeline(**({"targets": TARGETS} | change))
    stages = {name.split()[0] for name in build_jobs(cluster)}
    assert stages <= {"assemble", "parity"}


def test_a_change_of_metadata_alone_writes_nothing() -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline()
    serve(cluster)
    cluster.pipeline()["metadata"]["labels"] = {"team": "drawing"}
    cluster.pipeline()["metadata"]["annotations"] = {"note": "hung"}
    cluster.writes.clear()
    reconcile(cluster)
    assert cluster.writes == []


def test_each_distinct_source_is_fetched_once() -> None:
    cluster = FakeCluster()
    lora = {"source": hub(OTHER, "demo/loras"), "file": "a.safetensors"}
    net = {"name": "canny", "source": hub(OTHER, "demo/canny")}
    vae = {"vae": {"source": hub(OTHER, "demo/vae")}}
    cluster.apply_pipeline(model=model(loras=[lora, {**lora, "weight": 0.5}], controlNets=[net], components=vae))
    settle(cluster)
    fetched = [job["spec"]["template"]["spec"]["containers"][0]["args"] for job in cluster.unfinished_jobs()]
    sources = sorted(" ".join(arguments[5:-2]) for arguments in fetched)
    assert sources == sorted(
        [
            f"--repo demo/shapes --revision {REVISION}",
            f"--repo demo/loras --revision {OTHER} --component lora --file a.safetensors",
            f"--repo demo/canny --revision {OTHER} --component controlnet",
            f"--repo demo/vae --revision {OTHER} --component vae",
        ]
    )


def exports(cluster: FakeCluster, **fields: Any) -> dict[str, str]:  # noqa: ANN401 - fields of spec.model
    """Arguments of the export Jobs by component."""
    cluster.apply_pipeline(model=model(**fields))
    settle(cluster)
    cluster.succeed_jobs()
    settle(cluster)
    jobs = [job for job in cluster.unfinished_jobs() if job["metadata"]["labels"][STAGE] == "export"]
    arguments = {job["metadata"]["labels"][COMPONENT]: job["spec"]["template"]["spec"]["containers"][0] for job in jobs}
    return {name: " ".join(container["args"]) for name, container in arguments.items()}


def test_additions_reach_the_components_that_they_change_and_no_other() -> None:
    lora = {"source": hub(OTHER, "demo/loras"), "weight": 0.5}
    arguments_by_component = exports(FakeCluster(), loras=[lora], clipSkip=1, longPrompts=True, guidanceRescale=True)
    assert '"weight":0.5' in arguments_by_component["denoiser"]
    assert '"guidanceRescale":true' in arguments_by_component["denoiser"]
    assert '"longPrompts":true' in arguments_by_component["denoiser"]
    assert '"clipSkip":1' in arguments_by_component["text_encoder"]
    assert '"weight":0.5' in arguments_by_component["text_encoder"]
    assert "--options" not in arguments_by_component["vae_decoder"]
    assert "--options" not in arguments_by_component["scheduler_step"]


def test_control_nets_are_engines_and_the_denoiser_knows_their_number() -> None:
    nets = [{"name": name, "source": hub(OTHER, f"demo/{name}")} for name in ("canny", "depth")]
    arguments_by_component = exports(FakeCluster(), controlNets=nets)
    assert {"controlnet_canny", "controlnet_depth"} <= arguments_by_component.keys()
    assert '"controlNets":2' in arguments_by_component["denoiser"]
    assert "--component controlnet " in arguments_by_component["controlnet_canny"]
    assert '"controlNet":"' in arguments_by_component["controlnet_canny"]


def test_a_component_of_its_own_is_exported_with_the_rest_of_the_checkpoint_around_it() -> None:
    cluster = FakeCluster()
    arguments_by_component = exports(cluster, components={"denoiser": {"source": hub(OTHER, "demo/unet")}})
    assert '"shapeSources":["' in arguments_by_component["denoiser"]
    assert "--options" not in arguments_by_component["text_encoder"]


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_precision_is_of_all_components_unless_one_says_otherwise(precision: str) -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline(targets=TARGETS[:1], precision=precision, componentPrecision={"vae_decoder": "float32"})
    settle(cluster)
    cluster.succeed_jobs()
    settle(cluster)
    arguments_by_component = {
        job["metadata"]["labels"][COMPONENT]: " ".join(job["spec"]["template"]["spec"]["containers"][0]["args"])
        for job in cluster.unfinished_jobs()
    }
    assert f"--precision {precision}" in arguments_by_component["denoiser"]
    assert "--precision float32" in arguments_by_component["vae_decoder"]
    assert "--precision float32" in arguments_by_component["scheduler_step"]


def test_a_claim_of_an_addition_that_does_not_exist_is_named() -> None:
    cluster = FakeCluster()
    lora = {"source": {"persistentVolumeClaim": {"claimName": "nowhere"}}}
    cluster.apply_pipeline(model=model(loras=[lora]))
    settle(cluster)
    assert cluster.condition("EnginesReady")["reason"] == "StorageNotFound"
    assert "claim nowhere does not exist" in cluster.condition("Ready")["message"]


def test_a_full_store_is_answered_with_what_to_do() -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline()
    settle(cluster)
    [fetch] = cluster.unfinished_jobs()
    cluster.end_job(fetch, 74, {"error": {"reason": "StoreFull", "message": "3 GiB are needed, 1 GiB is free"}})
    settle(cluster)
    message = cluster.condition("EnginesReady")["message"]
    assert "3 GiB are needed" in message
    assert "Enlarge claim shapes-store" in message
