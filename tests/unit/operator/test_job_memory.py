"""Memory that Jobs of the build request."""

import pytest

from diffusion_contract.resources import Resources
from diffusion_operator import naming
from diffusion_operator.plan.job_memory import LEAST_BYTES, needed_bytes, with_memory
from tests.support.operator.fake_cluster import FakeCluster, result_of
from tests.support.operator.reconciling import settle

_GIB = 2**30


def test_small_models_and_unknown_sizes_get_the_least() -> None:
    assert needed_bytes("export", None) == needed_bytes("export", 20_000_000) == LEAST_BYTES


@pytest.mark.parametrize("stage", ["export", "compile", "parity"])
def test_memory_grows_with_the_weights_in_steps(stage: str) -> None:
    sizes = [needed_bytes(stage, weights * _GIB) for weights in (1, 2, 4)]
    assert sizes == sorted(set(sizes))
    assert all(size % (512 * 2**20) == 0 for size in sizes)
    assert needed_bytes(stage, 3 * _GIB) > 3 * _GIB


@pytest.mark.parametrize(
    "resources",
    [Resources(requests={"memory": "1Gi"}), Resources(limits={"memory": "4Gi"}), Resources(requests={"memory": "0"})],
)
def test_memory_that_a_user_names_stays(resources: Resources) -> None:
    assert with_memory(resources, "export", 8 * _GIB) == resources


def test_a_request_is_added_to_what_is_named_besides() -> None:
    resources = with_memory(Resources(requests={"cpu": "2"}, limits={"cpu": "4"}), "export", None)
    assert (resources.requests, resources.limits) == ({"cpu": "2", "memory": "2048Mi"}, {"cpu": "4"})


def test_an_export_requests_memory_by_what_the_fetch_has_reported() -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline()
    settle(cluster)
    [fetch] = cluster.unfinished_jobs()
    sizes = {"text_encoder": _GIB // 4, "unet": 3 * _GIB, "vae": _GIB // 8}
    cluster.end_job(fetch, 0, result_of(fetch) | {"weightBytes": sizes})
    settle(cluster)
    exports = {job["metadata"]["labels"][naming.COMPONENT]: job for job in cluster.unfinished_jobs()}
    requests = {
        name: job["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["memory"]
        for name, job in exports.items()
    }
    assert requests["scheduler_step"] == "2048Mi"
    assert requests["denoiser"] == f"{needed_bytes('export', 3 * _GIB) // 2**20}Mi"
