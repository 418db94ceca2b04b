"""Every YAML, JSON, Python and PromQL block of the documentation is what it says that it is."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any

import kubernetes.client
import promql_parser
import pytest
import yaml

from diffusion_contract.documents import InvalidSpecError, read_local, read_spec
from diffusion_operator.api import KIND
from tests.support.documents import Block, documents, fill, in_language
from tests.support.paths import ROOT
from tools.common.errors import ToolError
from tools.devcluster.nodes import parse_nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MINIMAL: dict[str, Any] = {
    "model": {"source": {"huggingFace": {"repo": "demo/shapes", "revision": "a" * 40}}},
    "targets": [{"name": "cpu"}],
}
# Kinds of others, which the client of Kubernetes does not know.
FOREIGN_KINDS = {
    ("argoproj.io/v1alpha1", "Application"),
    ("argoproj.io/v1alpha1", "ApplicationSet"),
    ("gateway.envoyproxy.io/v1alpha1", "BackendTrafficPolicy"),
    ("gateway.envoyproxy.io/v1alpha1", "SecurityPolicy"),
    ("gateway.networking.k8s.io/v1", "Gateway"),
    ("gateway.networking.k8s.io/v1", "GatewayClass"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("helm.toolkit.fluxcd.io/v2", "HelmRelease"),
    ("keda.sh/v1alpha1", "ScaledObject"),
    ("kustomize.config.k8s.io/v1beta1", "Kustomization"),
    ("kustomize.toolkit.fluxcd.io/v1", "Kustomization"),
    ("source.toolkit.fluxcd.io/v1", "GitRepository"),
    ("source.toolkit.fluxcd.io/v1", "OCIRepository"),
    ("monitoring.coreos.com/v1", "PodMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("nvidia.com/v1", "ClusterPolicy"),
}
GROUPS = frozenset(
    ("", "apps", "autoscaling", "batch", "networking.k8s.io", "node.k8s.io", "policy", "rbac.authorization.k8s.io")
) | {"resource.k8s.io", "scheduling.k8s.io", "storage.k8s.io"}
LANGUAGES = {"console", "json", "lua", "mermaid", "promql", "python", "text", "yaml"}
TYPE = re.compile(r"(?:[Dd]ict\(str, |[Ll]ist\[)?(V\w+)")


def pipeline_problem(spec: object) -> str:
    """What the API says of a spec."""
    try:
        read_spec(spec)
    except InvalidSpecError as error:
        return str(error)
    return ""


def object_problem(value: object, model: str, path: str) -> str:
    """Fields that a type of Kubernetes does not have."""
    kind = getattr(kubernetes.client, model, None)
    if not isinstance(value, dict) or kind is None:
        return ""
    types: Mapping[str, str] = {kind.attribute_map[name]: text for name, text in kind.openapi_types.items()}
    for name, item in value.items():
        if name not in types:
            return f"{path}.{name} is no field of {model}"
        inner = TYPE.match(types[name])
        if inner is None:
            continue
        # A dict of objects does not occur in what the documents show.
        for one in item if isinstance(item, list) else [item]:
            if text := object_problem(one, inner[1], f"{path}.{name}"):
                return text
    return ""


def model_of(api_version: str, kind: str) -> str:
    """The client's class of an object, such as V1Deployment; empty when there is none."""
    group, _, version = api_version.rpartition("/")
    name = version.replace("v", "V", 1) + kind
    model = getattr(kubernetes.client, name, None) if group in GROUPS else None
    return name if model and {"api_version", "kind", "metadata"} <= set(model.openapi_types) else ""


def resource_problem(document: dict[str, Any]) -> str:
    """A whole object: apiVersion and kind."""
    key = (str(document["apiVersion"]), str(document.get("kind")))
    if key[1] == KIND:
        return pipeline_problem(document.get("spec"))
    if key in FOREIGN_KINDS:
        return ""
    model = model_of(*key)
    return object_problem(document, model, key[1]) if model else f"{key} is no kind that is known here"


def values_problem(fragment: object, defaults: object, path: str = "") -> str:
    """Values that the chart does not have; below an empty one anything goes."""
    if not isinstance(fragment, dict) or not isinstance(defaults, dict) or not defaults:
        return ""
    for name, item in fragment.items():
        if name not in defaults:
            return f"the chart has no value {path}{name}"
        if text := values_problem(item, defaults[name], f"{path}{name}."):
            return text
    return ""


def nodes_problem(document: dict[str, Any]) -> str:
    try:
        parse_nodes(yaml.safe_dump(document), "document")
    except ToolError as error:
        return str(error)
    return ""


def build_problem(document: dict[str, Any]) -> str:
    try:
        read_local(document)
    except InvalidSpecError as error:
        return str(error)
    return ""


@cache
def chart_values() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ROOT / "charts" / "diffusion-operator" / "values.yaml").read_text())
    return values


# A fragment is recognised by its first line, or else by its fields.
CHECKS_BY_HEADING: dict[str, Callable[[dict[str, Any]], str]] = {
    "# values of the chart": lambda fragment: values_problem(fragment, chart_values()),
    "# for diffusion-builder": build_problem,
    "# part of a target": lambda fragment: pipeline_problem(MINIMAL | {"targets": [{"name": "l4", **fragment}]}),
    "# for the devcluster": nodes_problem,
    "# for the Prometheus adapter": lambda fragment: "" if set(fragment) == {"rules"} else "has more than rules",
}


def fragment_problem(first: str, document: dict[str, Any]) -> str:
    """A part of something: of a spec, unless its first line or its fields say otherwise."""
    check = next((check for name, check in CHECKS_BY_HEADING.items() if first.startswith(name)), None)
    if check is not None:
        return check(document)
    if set(document) <= set(chart_values()):
        return values_problem(document, chart_values())
    spec = document["spec"] if set(document) == {"spec"} else document
    return pipeline_problem(MINIMAL | spec)


def yaml_problems(block: Block) -> list[str]:
    """What is wrong with each document of a block."""
    try:
        parsed = [item for item in yaml.safe_load_all(fill(block.text)) if item is not None]
    except yaml.YAMLError as error:
        return [f"{block.where}: {error}"]
    if not parsed or not all(isinstance(item, dict) for item in parsed):
        return [f"{block.where}: is no mapping"]
    first = block.text.partition("\n")[0]
    problems = [resource_problem(item) if "apiVersion" in item else fragment_problem(first, item) for item in parsed]
    return [f"{block.where}: {text}" for text in problems if text]


def test_every_block_says_what_it_is() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line}"
        for path in documents()
        for number, line in _openings(path.read_text())
        if line.strip().removeprefix("```").partition(" ")[0] not in LANGUAGES
    ]
    assert wrong == []


def _openings(text: str) -> list[tuple[int, str]]:
    fences = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.lstrip().startswith("```")]
    assert len(fences) % 2 == 0
    return fences[::2]


def test_every_yaml_block_is_valid() -> None:
    yaml_blocks = in_language("yaml")
    assert len(yaml_blocks) > 10
    assert [text for block in yaml_blocks for text in yaml_problems(block)] == []


def block_of(text: str) -> Block:
    return Block(ROOT / "docs" / "example.md", 1, "yaml", text)


HEAD = f"apiVersion: diffusion-operator.io/v1alpha1\nkind: {KIND}\nmetadata: {{name: a}}\n"


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "spec: {targets: [{name: cpu}]}",
        "scheduler: {type: Eular}",
        "spec:\n  pipelines: [{task: generate, stepps: [4]}]",
        "# values of the chart\nreplicaCount: 2",
        "# part of a target\nautoscaling: {minReplicas: 1}",
        "# for diffusion-builder\nmodel: {}",
        "# for the devcluster\nnodes: [{nam: a}]",
        "apiVersion: v1\nkind: PersistentVolumeClaim\nspec: {accessMode: [ReadWriteMany]}",
        "apiVersion: apps/v1\nkind: Deployment\nspec: {template: {spec: {containers: [{image: a, argz: []}]}}}",
        "apiVersion: apps/v2\nkind: Deployment",
        "a: [",
        "- a",
    ],
)
def test_a_wrong_yaml_block_is_found(text: str) -> None:
    assert yaml_problems(block_of(text)) != []


def test_every_json_block_is_json() -> None:
    for block in in_language("json"):
        assert json.loads(re.sub(r", \.\.\.(?=\})", "", block.text)), block.where


def test_every_python_block_compiles() -> None:
    for block in in_language("python"):
        compile(block.text, block.where, "exec")


def test_every_promql_block_is_promql() -> None:
    for block in in_language("promql"):
        for line in block.text.splitlines():
            if query := line.partition("#")[0].strip():
                promql_parser.parse(query)
