"""Each module brings up only the controllers that it needs, in the cluster that the cluster tests use, too."""

from tests.support.cluster.fixtures import (
    cluster,
    hub_kube,
    images,
    namespace,
    namespaces,
    operator,
    shared_namespace,
)

__all__ = ["cluster", "hub_kube", "images", "namespace", "namespaces", "operator", "shared_namespace"]
