"""Argo CD's engine keeps a pipeline in step with git on a real API server. The tests share one pipeline, in order.

Jobs and pods are played; the operator is a process.
"""

from __future__ import annotations

import asyncio
import copy
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from diffusion_operator import naming
from diffusion_operator.kube_client import connect
from tests.support.cluster.admission import with_schema
from tests.support.cluster.kube import Kube, Object, condition, eventually
from tests.support.cluster.operator_process import operator_process
from tests.support.cluster.pipelines import ready
from tests.support.integrations.gitops import FOLDER, Engine, engine
from tests.support.integrations.repository import Repository, served
from tests.support.operator.fleet import CLAIM, ControllerClient, Fleet, claim, pipeline, revision, simulate_controllers
from tests.support.paths import CRD
from tools.devcluster.bare import ApiServer, api_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FLEET = Fleet(1, 1)
PIPELINE = FLEET.reference(0)
FILE = f"{FOLDER}/{PIPELINE.name}.yaml"
SECONDS = 180.0


@dataclass(frozen=True)
class Studio:
    """A repository, its engine, and a namespace that follows it."""

    server: ApiServer
    kube: Kube
    repository: Repository
    engine: Engine

    @property
    def live(self) -> Object:
        """The pipeline."""
        return self.kube.get("diffusionpipelines", PIPELINE.name) or {}

    @property
    def target(self) -> Object:
        """Status of the only target."""
        target_statuses: list[Object] = self.live.get("status", {}).get("targets") or [{}]
        return target_statuses[0]

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Play Jobs and pods until it is so."""

        def simulate() -> bool:
            if condition():
                return True
            asyncio.run(self._play())
            return False

        eventually(simulate, SECONDS, lambda: f"{what}\n{self.live.get('status')}\n{self.engine.output_tail()}")

    async def _play(self) -> None:
        async with connect(str(self.server.user_kubeconfig)) as connection:
            await simulate_controllers(ControllerClient.of(connection), FLEET)

    def builds(self) -> set[str]:
        """Names of the Jobs, without those that nobody needs any more."""
        return {job["metadata"]["name"] for job in self.kube.list("jobs", naming.MANAGED_SELECTOR)}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("gitops")
    with api_server() as server, served(folder) as repository:
        server.apply(CRD)
        kube = Kube(server.environment, PIPELINE.namespace)
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PIPELINE.namespace}})
        with_schema(kube)
        kube.apply(claim(kube.namespace))
        with (
            operator_process(server, folder / "operator.log", IDENTITY="operator"),
            engine(kube, repository.url, folder) as running,
        ):
            yield Studio(server, kube, repository, running)


def pipeline_manifest(**components: Object) -> Object:
    """The file in git."""
    document = copy.deepcopy(pipeline(PIPELINE, revision(1)))
    del document["metadata"]["namespace"]
    document["spec"]["rollout"] = {"steps": [{"weight": 10, "pause": "1h"}]}
    if components:
        document["spec"]["model"]["components"] = components
    return document


def test_a_commit_makes_a_pipeline_and_the_next_look_finds_no_difference(studio: Studio) -> None:
    commit = studio.repository.commit(FILE, pipeline_manifest())
    own = f"DiffusionPipeline/{PIPELINE.name}"
    assert studio.engine.synced(commit) == [f"{own} Synced"]
    studio.engine.wait_unchanged(commit)
    studio.wait(lambda: ready(studio.kube, PIPELINE.name), "the pipeline is ready")
    tree = studio.engine.wait_unchanged(commit).tree
    assert own in tree
    assert {name.split("/")[0] for name in tree} >= {"DiffusionPipeline", "Job", "Deployment", "Service"}


def test_a_commit_with_another_unet_builds_one_engine_and_starts_a_canary(studio: Studio) -> None:
    stable, before = studio.target["stableRevision"], studio.builds()
    unet = {"source": {"huggingFace": {"repo": "demo/few-steps", "revision": revision(2)}}}
    commit = studio.repository.commit(FILE, pipeline_manifest(denoiser=unet))
    assert studio.engine.synced(commit)
    studio.wait(lambda: studio.target.get("canaryWeight"), "a canary has requests")
    studio.engine.wait_unchanged(commit)
    assert studio.target["stableRevision"] == stable != studio.target["canaryRevision"]
    assert condition(studio.live, "RolloutComplete")["reason"] == "CanaryProgressing"
    stages = sorted(name.rsplit("-", 1)[0] for name in studio.builds() - before)
    assert stages == ["assemble", "compare", "compile-denoiser", "export-denoiser", "fetch", "parity"]


def test_git_revert_takes_the_canary_back_before_anything_is_built(studio: Studio) -> None:
    stable = studio.target["stableRevision"]
    commit = studio.repository.revert()
    assert studio.engine.synced(commit)
    # No Job ends and no pod starts meanwhile.
    eventually(lambda: not studio.target.get("canaryWeight"), 60, lambda: str(studio.live["status"]))
    studio.wait(lambda: ready(studio.kube, PIPELINE.name) and not studio.target.get("canaryRevision"), "no canary")
    studio.engine.wait_unchanged(commit)
    assert studio.target["stableRevision"] == stable


def test_what_somebody_changes_by_hand_is_put_back(studio: Studio) -> None:
    change = {"spec": {"model": {"source": {"huggingFace": {"revision": revision(3)}}}}}
    studio.kube.run("patch", "dp", PIPELINE.name, "--type=merge", "-p", json.dumps(change))

    def live_revision() -> str:
        return str(studio.live["spec"]["model"]["source"]["huggingFace"]["revision"])

    eventually(lambda: live_revision() == revision(1), SECONDS, studio.engine.output_tail)


def test_a_file_that_is_removed_takes_the_pipeline_with_it_and_nothing_else(studio: Studio) -> None:
    commit = studio.repository.commit(FILE, None)
    assert studio.engine.synced(commit) == [f"DiffusionPipeline/{PIPELINE.name} Pruned"]
    eventually(lambda: not studio.live, SECONDS, studio.engine.output_tail)
    assert studio.kube.get("persistentvolumeclaim", CLAIM) is not None
