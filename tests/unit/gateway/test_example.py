"""The example for a cluster starts what the command line takes, without rights, in front of the example's pipeline."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from diffusion_contract.limits import GRPC_PORT
from diffusion_gateway.cli import _settings, cli
from diffusion_gateway.keys import parse_keys
from diffusion_gateway.settings import PipelineAddress
from tests.support.paths import ROOT

EXAMPLES = ROOT / "examples"


@cache
def objects() -> dict[str, Any]:
    return {item["kind"]: item for item in yaml.safe_load_all((EXAMPLES / "gateway.yaml").read_text())}


def _pod() -> dict[str, Any]:
    pod: dict[str, Any] = objects()["Deployment"]["spec"]["template"]["spec"]
    return pod


def test_the_arguments_are_those_of_the_command_line() -> None:
    (container,) = _pod()["containers"]
    command, *arguments = container["args"]
    settings = _settings(cli.commands[command].make_context(command, arguments).params)
    pipeline = yaml.safe_load((EXAMPLES / "pipeline.yaml").read_text())["metadata"]["name"]
    assert settings.pipelines == (PipelineAddress(pipeline, f"{pipeline}:{GRPC_PORT}"),)
    keys = Path(str(settings.keys))
    assert str(keys.parent) in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert parse_keys(objects()["Secret"]["stringData"][keys.name].encode(), keys).by_digest == {}


def test_the_pod_has_no_rights() -> None:
    pod, (container,) = _pod(), _pod()["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip


def test_probes_and_the_service_lead_to_the_pods() -> None:
    (container,) = _pod()["containers"]
    ports = {port["name"] for port in container["ports"]}
    probes = [container[name]["httpGet"] for name in ("readinessProbe", "livenessProbe")]
    assert [(probe["path"], probe["port"] in ports) for probe in probes] == [("/readyz", True), ("/healthz", True)]
    service, deployment = objects()["Service"]["spec"], objects()["Deployment"]["spec"]
    assert service["selector"] == deployment["selector"]["matchLabels"] == deployment["template"]["metadata"]["labels"]
    assert {port["targetPort"] for port in service["ports"]} <= ports
