"""Reading an API server without kubectl gives what kubectl gives."""

from __future__ import annotations

import json
import ssl
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cluster.api_reader import ApiError, ApiReader, UnknownResourceError
from tests.support.loopback import serving
from tools.devcluster.configs import KubeconfigParts, kubeconfig
from tools.devcluster.pki import Pki, Subject

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Answers = dict[str, list[tuple[int, Any]]]
"""Status and body by path; the last one is repeated."""


def entry(kind: str, plural: str, *short_names: str, scope: str = "Namespaced") -> dict[str, Any]:
    names = {"resource": plural, "singularResource": kind.lower(), "shortNames": list(short_names)}
    return {**names, "scope": scope, "responseKind": {"kind": kind}}


def group(name: str, version: str, *entries: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": name}, "versions": [{"version": version, "resources": list(entries)}]}


CORE = [
    group("", "v1", entry("Pod", "pods", "po"), entry("Event", "events"), entry("Node", "nodes", scope="Cluster")),
]
GROUPS = [
    group("events.k8s.io", "v1", entry("Event", "events")),
    group("autoscaling", "v2", entry("HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa")),
]
DISCOVERY: Answers = {"/api": [(200, {"items": CORE})], "/apis": [(200, {"items": GROUPS})]}


@contextmanager
def reader(folder: Path, answers: Answers) -> Iterator[tuple[ApiReader, list[str]]]:
    """Of a server with these answers, and the paths that it was asked for."""
    paths: list[str] = []
    pki = Pki(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            remaining = answers.get(self.path, [(404, {})])
            status, body = remaining.pop(0) if len(remaining) > 1 else remaining[0]
            self.send_response(status)
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - of the base class
            pass

    certificate = pki.issue("serving", Subject("kube-apiserver", hosts=("127.0.0.1",)))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pki.authority("cluster").certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate.certificate, certificate.key)
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server):
        yield ApiReader(write_kubeconfig(folder, pki, server.server_port)), paths


def write_kubeconfig(folder: Path, pki: Pki, port: int) -> Path:
    client = pki.issue("admin", Subject("admin", ("system:masters",)))
    authority = pki.authority("cluster").certificate.read_bytes()
    parts = KubeconfigParts(
        f"https://127.0.0.1:{port}", authority, client.certificate.read_bytes(), client.key.read_bytes()
    )
    path = folder / "kubeconfig"
    path.write_text(kubeconfig(parts))
    return path


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("pods", "/api/v1/namespaces/test/pods/one"),
        ("po", "/api/v1/namespaces/test/pods/one"),
        ("Pod", "/api/v1/namespaces/test/pods/one"),
        ("node", "/api/v1/nodes/one"),
        ("events", "/api/v1/namespaces/test/events/one"),
        ("events.events.k8s.io", "/apis/events.k8s.io/v1/namespaces/test/events/one"),
        ("hpa", "/apis/autoscaling/v2/namespaces/test/horizontalpodautoscalers/one"),
    ],
)
def test_every_name_that_kubectl_takes_leads_to_the_preferred_version(tmp_path: Path, kind: str, path: str) -> None:
    with reader(tmp_path, DISCOVERY | {path: [(200, {"kind": "any"})]}) as (api, _paths):
        assert api.get(kind, "test", "one") == {"kind": "any"}
        assert api.get(kind, "test", "two") is None


def test_objects_of_a_list_say_their_kind_and_the_selector_is_sent(tmp_path: Path) -> None:
    path = "/apis/autoscaling/v2/namespaces/test/horizontalpodautoscalers"
    answers: Answers = {
        path: [(200, {"items": []})],
        f"{path}?labelSelector=a%3Db": [(200, {"items": [{"metadata": {}}]})],
    }
    with reader(tmp_path, DISCOVERY | answers) as (api, _paths):
        assert api.list("hpa", "test") == []
        kind_fields = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"}
        assert api.list("hpa", "test", "a=b") == [kind_fields | {"metadata": {}}]


def test_a_definition_that_comes_later_is_found(tmp_path: Path) -> None:
    keda = group("keda.sh", "v1alpha1", entry("ScaledObject", "scaledobjects"))
    answers: Answers = DISCOVERY | {
        "/apis": [(200, {"items": GROUPS}), (200, {"items": GROUPS}), (200, {"items": [keda]})]
    }
    answers["/apis/keda.sh/v1alpha1/namespaces/test/scaledobjects"] = [(200, {"items": []})]
    with reader(tmp_path, answers) as (api, _paths):
        with pytest.raises(UnknownResourceError, match="resource type 'scaledobjects'"):
            api.list("scaledobjects", "test")
        assert api.list("scaledobjects", "test") == []


def test_a_server_that_says_later_is_asked_again_and_a_refusal_is_told(tmp_path: Path) -> None:
    path = "/api/v1/namespaces/test/pods/one"
    answers: Answers = DISCOVERY | {
        path: [(429, {}), (429, {}), (200, {"kind": "Pod"}), (403, {"message": "no rights"})]
    }
    with reader(tmp_path, answers) as (api, paths):
        assert api.get("pod", "test", "one") == {"kind": "Pod"}
        assert paths.count(path) == 3
        with pytest.raises(ApiError, match="no rights"):
            api.get("pod", "test", "one")


def test_a_server_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with reader(tmp_path, DISCOVERY) as (api, _paths):
        pass
    with pytest.raises(ApiError, match=r"127\.0\.0\.1"):
        api.get("pod", "test", "one")


def test_an_aggregated_api_that_cannot_be_reached_yet_hides_no_other(tmp_path: Path) -> None:
    stale = {"metadata": {"name": "custom.metrics.k8s.io"}, "versions": [{"version": "v1beta2", "freshness": "Stale"}]}
    answers: Answers = {
        "/api": [(200, {"items": CORE})],
        "/apis": [(200, {"items": [*GROUPS, stale]})],
        "/api/v1/nodes/one": [(200, {"kind": "Node"})],
    }
    with reader(tmp_path, answers) as (api, _paths):
        assert api.get("node", "test", "one") == {"kind": "Node"}
