"""Generated from the chart for those who use no Helm: kustomize bases and one plain manifest."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

import yaml

from tools.charttools.render import NAMESPACE, objects, render
from tools.charttools.value_sets import IMAGES
from tools.common.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

Object = dict[str, Any]

HEAD: Final = "# Generated from charts/diffusion-operator by `make manifests`; change the chart instead.\n"
INSTALL_HEAD: Final = """\
# The definition of DiffusionPipelines and the operator, for kubectl.
#
# The images are your own (docs/images.md): registry.example.com stands for your registry and the path there, in the
# image of the Deployment and in its variables DIFFUSION_OPERATOR_BUILDER_IMAGE, DIFFUSION_OPERATOR_SERVING_IMAGE and
# DIFFUSION_OPERATOR_GATEWAY_IMAGE. Applied as it is, the operator's pod ends in ImagePullBackOff. To push the images
# and set all four:
#   make images REGISTRY=REGISTRY/PATH TAG=VERSION
#   sed 's|registry\\.example\\.com|REGISTRY/PATH|' deploy/install.yaml | kubectl apply --server-side -f -
# A registry with a login also needs a pull secret: deploy/kustomize/overlays/private-registry has it.
"""
HEALTH: Final = ROOT / "deploy" / "argocd" / "health.lua"
APPLICATION_HEALTH: Final = HEALTH.with_name("application-health.lua")
HEALTH_HEAD: Final = """\
# Generated from the .lua files by `make manifests`. Merge it into Argo CD's own ConfigMap:
#   kubectl patch configmap argocd-cm --namespace argocd --type merge --patch-file deploy/argocd/argocd-cm.yaml
data:
"""
_HEALTH_SCRIPTS: Final = {
    "diffusion-operator.io_DiffusionPipeline": HEALTH,
    "argoproj.io_Application": APPLICATION_HEALTH,
}
KUSTOMIZE: Final = ROOT / "deploy" / "kustomize"
OPERATOR: Final = KUSTOMIZE / "base" / "operator.yaml"
INSTALL: Final = ROOT / "deploy" / "install.yaml"
DEFINITION: Final = ROOT / "crds" / "diffusionpipelines.yaml"
ANYWHERE: Final = "studio"
_OPERATOR: Final[Object] = {**IMAGES, "crds": {"enabled": False}}
_MONITORED: Final[Object] = {"metrics": {"podMonitor": True}, "alerts": {"enabled": True}}
_RESTRICTED: Final[Object] = {"pod-security.kubernetes.io/enforce": "restricted"}
_NAMESPACE: Final[Object] = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": NAMESPACE, "labels": _RESTRICTED},
}


def files() -> dict[Path, str]:
    """Every generated file and its content."""
    operator = _plain(render(_OPERATOR))
    monitored = _plain(render({**_OPERATOR, **_MONITORED}))
    placed = _plain(render({**_OPERATOR, "networkPolicy": {"pipelineNamespaces": [ANYWHERE]}}))
    parts: dict[Path, Iterable[Object]] = {
        OPERATOR: [_NAMESPACE, *operator],
        KUSTOMIZE / "components" / "monitoring" / "monitoring.yaml": [
            item for item in monitored if item["apiVersion"].startswith("monitoring.coreos.com/")
        ],
        KUSTOMIZE / "pipeline-namespace" / "networkpolicies.yaml": _unplaced(placed),
    }
    contents = {path: HEAD + _dump(items) for path, items in parts.items()}
    contents |= {HEALTH.with_name("argocd-cm.yaml"): health_settings()}
    return contents | {INSTALL: installation(contents[OPERATOR])}


def installation(operator: str) -> str:
    """The one plain manifest: the definition and the operator. Needs no Helm, as the definition changes often."""
    head = INSTALL_HEAD.replace("VERSION", _version())
    return f"{head}{DEFINITION.read_text().rstrip()}\n---\n{operator}"


def _version() -> str:
    chart = yaml.safe_load((ROOT / "charts" / "diffusion-operator" / "Chart.yaml").read_text())
    return str(chart["appVersion"])


def health_settings() -> str:
    """The health scripts as Argo CD's ConfigMap takes them."""
    lines = []
    for kind, file in _HEALTH_SCRIPTS.items():
        lines.append(f"  resource.customizations.health.{kind}: |\n")
        lines += [f"    {line}\n" if line else "\n" for line in file.read_text().splitlines()]
    return HEALTH_HEAD + "".join(lines)


def _plain(text: str) -> list[Object]:
    """Without the tests of the release and what only Helm reads."""
    applied = [item for item in objects(text) if "helm.sh/hook" not in item["metadata"].get("annotations", {})]
    return [_without_helm(item) for item in applied]


def _without_helm(item: Object) -> Object:
    document = copy.deepcopy(item)
    _each_metadata(document, _remove_helm)
    return document


def _each_metadata(item: Any, change: Callable[[Object], None]) -> None:  # noqa: ANN401 - any JSON
    if isinstance(item, list):
        for part in item:
            _each_metadata(part, change)
    elif isinstance(item, dict):
        if isinstance(item.get("metadata"), dict):
            change(item["metadata"])
        for part in item.values():
            _each_metadata(part, change)


def _remove_helm(metadata: Object) -> None:
    for field in ("labels", "annotations"):
        entries = metadata.get(field)
        if isinstance(entries, dict):
            remaining = {
                key: value for key, value in entries.items() if not key.startswith("helm.sh/") and value != "Helm"
            }
            metadata[field] = remaining
            if not remaining:
                del metadata[field]


def _unplaced(items: Iterable[Object]) -> list[Object]:
    """The chart's objects for one namespace of pipelines, without the namespace."""
    policies = [copy.deepcopy(item) for item in items if item["metadata"].get("namespace") == ANYWHERE]
    for item in policies:
        del item["metadata"]["namespace"]
    return policies


def _dump(items: Iterable[Object]) -> str:
    return yaml.safe_dump_all(items, sort_keys=False, width=120)
