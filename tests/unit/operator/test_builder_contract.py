"""The Jobs' command lines are understood by the real builder: its options, its JSON, its components."""

import json
from typing import Any

import pytest

from diffusion_builder.cli.main import cli
from diffusion_builder.components.options import check
from diffusion_contract.assembly import AssembleSpec
from diffusion_contract.comparison import CompareSpec
from diffusion_contract.enums import Component
from diffusion_contract.exports import ExportOptions
from diffusion_contract.spec import DiffusionPipelineSpec, Shapes
from diffusion_contract.spec.rollout import Quality, Scorer
from diffusion_operator import naming
from diffusion_operator.manifests.common import Owner
from diffusion_operator.manifests.job import job_manifest
from diffusion_operator.plan.build_jobs import BuildJobFactory, StoreClaim
from diffusion_operator.settings import Settings
from tests.support.operator.build_specs import HUB, SPECS
from tests.support.operator.fake_cluster import FakeCluster
from tests.support.operator.reconciling import build

OWNER, SETTINGS = Owner("shapes", "studio", "uid"), Settings("builder:1", "triton:1")


def command_lines(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Parameters of all Jobs of a pipeline, as the builder's own command line reads them."""
    cluster = FakeCluster()
    cluster.apply_pipeline(**spec)
    build(cluster)
    parsed_commands = []
    for name in cluster.names("Job"):
        [container] = cluster.objects["Job", name]["spec"]["template"]["spec"]["containers"]
        stage, arguments = container["args"][2], container["args"][3:]
        context = cli.commands[stage].make_context(
            stage, [word.replace("/dev/termination-log", "r") for word in arguments]
        )
        parsed_commands.append({"stage": stage, **context.params})
    return parsed_commands


@pytest.mark.parametrize("name", SPECS)
def test_the_builder_understands_every_job(name: str) -> None:
    stages = set()
    for parameters in command_lines(SPECS[name]):
        stages.add(parameters["stage"])
        if parameters["stage"] == "export":
            options = ExportOptions.model_validate(json.loads(parameters["options"]))
            check(Component(parameters["component"]), options)
        if parameters["stage"] == "compile":
            Shapes.model_validate(json.loads(parameters["shapes"]))
    assert stages == {"fetch", "export", "compile", "assemble", "parity"}


@pytest.mark.parametrize("name", SPECS)
def test_the_builder_understands_what_is_assembled(name: str) -> None:
    [parameters] = [item for item in command_lines(SPECS[name]) if item["stage"] == "assemble"]
    spec = AssembleSpec.model_validate(json.loads(parameters["spec"]))
    assert [net.name for net in spec.control_nets] == [
        net["name"] for net in SPECS[name].get("model", {}).get("controlNets", [])
    ]
    features = {feature for item in spec.pipelines for feature in item.features}
    assert (Component.IMAGE_ENCODER in spec.engines) >= ("ip_adapter" in features)
    assert (Component.SAFETY_CHECKER in spec.engines) == ("safetyChecker" in SPECS[name].get("model", {}))
    assert (Component.ZERO_RESIDUALS in spec.engines) == bool(spec.control_nets)
    assert (Component.VAE_ENCODER in spec.engines) == any(item.task != "generate" for item in spec.pipelines)
    assert (spec.batching.take_turns, spec.batching.priorities) == ((name != "every task"), (name == "every task"))
    # Empty: the type is the checkpoint's.
    assert spec.schedulers[0].request_name == ("karras" if name == "every task" else "")


QUALITY = {
    "prompts": [{"prompt": "a red star", "seed": 3, "steps": 4}, {"prompt": "a sea"}],
    "minPSNR": 30.0,
    "minSSIM": 0.5,
    "maxColorShift": 0.2,
}


@pytest.mark.parametrize("scorer", [None, {"image": "scorer:1"}, {"image": "scorer:1", "command": ["score", "-v"]}])
def test_the_builder_understands_a_comparison(scorer: dict[str, Any] | None) -> None:
    spec = DiffusionPipelineSpec.model_validate(
        {
            "model": SPECS["every task"]["model"],
            "targets": [{"name": "cpu"}],
            "pipelines": [{"task": "inpaint", "steps": [4]}, *SPECS["every task"]["pipelines"]],
        }
    )
    urls = {
        "stable": naming.service_url("shapes-cpu-01234567", "studio"),
        "canary": naming.service_url("shapes-cpu-89abcdef", "studio"),
    }
    quality = Quality.model_validate({**QUALITY, **({"scorer": scorer} if scorer else {})})
    request = BuildJobFactory(spec, StoreClaim("claim", "uid"), SETTINGS).compare(urls, quality)
    pod = job_manifest(request, OWNER, SETTINGS)["spec"]["template"]["spec"]
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        if container["name"] == "scorer":
            continue
        arguments = [word.replace("/dev/termination-log", "r") for word in container["args"][3:]]
        parameters = cli.commands["compare"].make_context("compare", arguments).params
        assert (parameters["stable"], parameters["canary"]) == (urls["stable"], urls["canary"])
        compare_spec = CompareSpec.model_validate(json.loads(parameters["spec"]))
        assert (compare_spec.stable, compare_spec.canary) == ("shapes-cpu-01234567", "shapes-cpu-89abcdef")
        assert compare_spec.ensembles[:2] == ("generate_20_pipeline", "generate_4_pipeline")
        assert [item.steps for item in compare_spec.golden_prompts] == [4, None]
        assert (compare_spec.min_psnr, compare_spec.min_ssim, compare_spec.max_color_shift) == (30.0, 0.5, 0.2)


def test_a_scorer_sees_the_images_and_neither_store_nor_more() -> None:
    spec = DiffusionPipelineSpec.model_validate(
        {"model": {"source": HUB}, "targets": [{"name": "cpu"}], "pipelines": [{"task": "generate", "steps": [4]}]}
    )
    urls = {"stable": "http://a.b.svc:8000", "canary": "http://c.b.svc:8000"}
    scored = Quality(scorer=Scorer(image="s:1"))
    requests = BuildJobFactory(spec, StoreClaim("claim", "uid"), SETTINGS)
    pod = job_manifest(requests.compare(urls, scored), OWNER, SETTINGS)["spec"]["template"]["spec"]
    drawing, scorer = pod["initContainers"]
    [build] = pod["containers"]
    assert {mount["name"] for mount in scorer["volumeMounts"]} == {"tmp", "images"}
    assert (scorer["image"], scorer["args"]) == ("s:1", ["/images"])
    assert scorer["securityContext"] == build["securityContext"]
    assert drawing["args"][-4:] == ["--export", "/images", "--result", "/dev/termination-log"]
    assert build["args"][-4:] == ["--score", "/images/score.json", "--result", "/dev/termination-log"]
    assert requests.compare(urls, Quality()).name != requests.compare(urls, scored).name
