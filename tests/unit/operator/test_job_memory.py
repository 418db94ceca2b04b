"""Memory that Jobs of the build request."""

import pytest

from diffusion_contract.resources import Resources
from diffusion_operator import naming
from diffusion_operator.plan.job_memory import (
    COMPILE,
    COMPILE_TENSORRT,
    EXPORT,
    LEAST_BYTES,
    PARITY,
    JobPeak,
    with_memory,
)
from tests.support.operator.fake_cluster import FakeCluster, result_of
from tests.support.operator.reconciling import settle

_GIB = 2**30


def test_small_models_and_unknown_sizes_get_the_least() -> None:
    assert EXPORT.needed_bytes(None) == EXPORT.needed_bytes(20_000_000) == LEAST_BYTES


@pytest.mark.parametrize("peak", [EXPORT, COMPILE, COMPILE_TENSORRT, PARITY])
def test_memory_grows_with_the_weights_in_steps(peak: JobPeak) -> None:
    sizes = [peak.needed_bytes(weights * _GIB) for weights in (1, 2, 4)]
    assert sizes == sorted(set(sizes))
    assert all(size % (512 * 2**20) == 0 for size in sizes)
    assert peak.needed_bytes(3 * _GIB) > 3 * _GIB


def test_what_was_measured_with_stable_diffusion_1_5_fits() -> None:
    denoiser, text_encoder = 1_719_000_000, 246_000_000
    assert EXPORT.needed_bytes(denoiser) >= 5514 * 2**20
    assert EXPORT.needed_bytes(text_encoder) >= 1860 * 2**20
    assert COMPILE_TENSORRT.needed_bytes(denoiser) >= 9184 * 2**20


@pytest.mark.parametrize(
    "resources",
    [Resources(requests={"memory": "1Gi"}), Resources(limits={"memory": "4Gi"}), Resources(requests={"memory": "0"})],
)
def test_memory_that_a_user_names_stays(resources: Resources) -> None:
    assert with_memory(resources, 8 * _GIB) == resources


def test_a_request_is_added_to_what_is_named_besides() -> None:
    resources = with_memory(Resources(requests={"cpu": "2"}, limits={"cpu": "4"}), LEAST_BYTES)
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
    assert requests["denoiser"] == f"{EXPORT.needed_bytes(3 * _GIB) // 2**20}Mi"
