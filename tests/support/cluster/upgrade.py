"""An upgrade as people do it: the next chart, with new images of the operator and of the builder."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING

from examples.demo_support.install import CHART, OPERATOR_NAMESPACE, image_options, split_reference, upgrade_operator
from tests.support.cluster.kube import Kube, Object, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from examples.demo_support.cluster import Cluster
    from examples.demo_support.install import Images

NEXT = "999.0.0"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def to_the_next_version(cluster: Cluster, images: Images, folder: Path) -> None:
    """Upgrade the release; returns when the new operator is the only one."""
    package = ["helm", "package", str(CHART), "--version", NEXT, "--app-version", NEXT, "--destination", str(folder)]
    cluster.tools.output(*package)
    tagged = image_options({name: _tagged(images[name]) for name in ("operator", "builder")})
    options = ["--reset-then-reuse-values", "--set", "resyncSeconds=299", *tagged]
    upgrade_operator(cluster.tools, options, folder / f"diffusion-operator-{NEXT}.tgz")
    kube = Kube(cluster.tools.environment, OPERATOR_NAMESPACE)
    eventually(lambda: versions(kube) == [NEXT], 120, lambda: f"operators are {versions(kube)}")


def versions(kube: Kube) -> list[str]:
    """The version of each operator pod, also of those that are on their way out."""
    pods = kube.list("pods", "app.kubernetes.io/name=diffusion-operator")
    return [pod["metadata"]["labels"].get("app.kubernetes.io/version", "") for pod in pods]


def _tagged(reference: str) -> str:
    """Give an image in the registry another tag; to Kubernetes it is another image."""
    name, tag = split_reference(reference)
    registry, _, repository = name.partition("/")
    url = f"http://{registry}/v2/{repository}/manifests"
    with urllib.request.urlopen(urllib.request.Request(f"{url}/{tag}", headers={"Accept": _MANIFEST})) as answer:  # noqa: S310 - the test's own registry
        manifest, kind = answer.read(), answer.headers["Content-Type"]
    put = urllib.request.Request(f"{url}/{tag}-next", manifest, {"Content-Type": kind}, method="PUT")  # noqa: S310 - the same
    urllib.request.urlopen(put).close()  # noqa: S310 - the same
    return f"{name}:{tag}-next"


def servers(kube: Kube) -> Object:
    """What tells a server that went on from one that was made anew: templates byte for byte, pods, and restarts."""
    pods = kube.list("pods", "diffusion-operator.io/revision")
    return {
        "templates": {
            item["metadata"]["name"]: (item["metadata"]["generation"], json.dumps(item["spec"]["template"]))
            for item in kube.list("deployments")
        },
        "restarts": {
            pod["metadata"]["uid"]: [state["restartCount"] for state in pod["status"]["containerStatuses"]]
            for pod in pods
        },
    }
