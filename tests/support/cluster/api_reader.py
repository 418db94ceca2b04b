"""Reads objects over HTTPS, for tests that wait: each kubectl takes a tenth of a second of processor time."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

Object = dict[str, Any]

_SECONDS = 60.0
# As Kubernetes' own clients: an API server that says "later" is asked again.
_ATTEMPTS = 10
_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class ApiError(Exception):
    """The API server's own words."""


class UnknownResourceError(ApiError):
    """The API server serves no such resource."""


@dataclass(frozen=True)
class Resource:
    """One kind of objects.

    Attributes:
        path: of the resource's version, such as ``/apis/apps/v1``.
        api_version: group and version, as objects name them.
        kind: as objects name it.
        plural: as paths name it.
        namespaced: whether its objects are in namespaces.
    """

    path: str
    api_version: str
    kind: str
    plural: str
    namespaced: bool

    def url(self, namespace: str, name: str = "") -> str:
        """Path of an object, or of all of a namespace."""
        scope = f"/namespaces/{namespace}" if self.namespaced else ""
        return f"{self.path}{scope}/{self.plural}" + (f"/{name}" if name else "")


@dataclass(frozen=True)
class ApiReader:
    """The API server of a kubeconfig with certificates in it. May be used by several threads.

    Attributes:
        kubeconfig: file.
    """

    kubeconfig: Path

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return an object, or None where there is none.

        Args:
            kind: any name that kubectl takes: plural, singular, short, or plural with group.
            namespace: of the object; of no account where the kind has none.
            name: of the object.

        Raises:
            ApiError: the API server refuses.
        """
        return self._read(self._resource(kind).url(namespace, name))

    def list(self, kind: str, namespace: str, selector: str = "") -> list[Object]:
        """Return all objects of a kind in a namespace, as `get` would.

        Raises:
            ApiError: the API server refuses.
        """
        resource = self._resource(kind)
        query = f"?{urlencode({'labelSelector': selector})}" if selector else ""
        listed = self._read(resource.url(namespace) + query)
        if listed is None:
            raise UnknownResourceError(f"{resource.path} has no {resource.plural} any more")
        # In lists the API server leaves these out.
        kind_fields = {"apiVersion": resource.api_version, "kind": resource.kind}
        return [kind_fields | item for item in listed["items"]]

    def _resource(self, kind: str) -> Resource:
        name = kind.lower()
        if name not in self._resources:
            self._resources.update(self._discover())
        if name not in self._resources:
            raise UnknownResourceError(f"the server doesn't have a resource type {kind!r}")
        return self._resources[name]

    @cached_property
    def _resources(self) -> dict[str, Resource]:
        """By every name; definitions that come later are looked up when they are asked for."""
        return self._discover()

    def _discover(self) -> dict[str, Resource]:
        documents = [self._read(path, accept=_DISCOVERY) or {} for path in ("/apis", "/api")]
        resources = [pair for document in documents for pair in _named_resources(document)]
        return dict(resources)

    def _read(self, path: str, accept: str = "application/json") -> Object | None:
        for _ in range(_ATTEMPTS):
            status, pause, text = self._request(path, accept)
            if status != HTTPStatus.TOO_MANY_REQUESTS:
                break
            time.sleep(pause)
        if status == HTTPStatus.NOT_FOUND:
            return None
        if status != HTTPStatus.OK:
            raise ApiError(f"{path}: {status} {text}")
        document: Object = json.loads(text)
        return document

    def _request(self, path: str, accept: str) -> tuple[int, float, str]:
        """Status, seconds to wait before another attempt, and body."""
        server, context = self._connection
        connection = http.client.HTTPSConnection(server, timeout=_SECONDS, context=context)
        try:
            connection.request("GET", path, headers={"Accept": accept})
            response = connection.getresponse()
            return response.status, float(response.headers.get("Retry-After", 1)), response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(f"{server}: {error}") from error
        finally:
            connection.close()

    @cached_property
    def _connection(self) -> tuple[str, ssl.SSLContext]:
        """Host and port, and what proves who is who."""
        document = yaml.safe_load(self.kubeconfig.read_text())
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authority)
        with tempfile.TemporaryDirectory() as folder:
            certificate, key = (Path(folder, name) for name in ("client-certificate-data", "client-key-data"))
            for path in (certificate, key):
                path.write_bytes(base64.b64decode(user[path.name]))
            context.load_cert_chain(certificate, key)
        return urlsplit(cluster["server"]).netloc, context


def _named_resources(discovery: Object) -> Iterator[tuple[str, Resource]]:
    """Every name of every resource in its preferred version; of two with one name the later one wins, as core does."""
    for group in reversed(discovery.get("items", [])):
        name = group["metadata"].get("name", "")
        preferred = group["versions"][0]
        api_version = f"{name}/{preferred['version']}" if name else preferred["version"]
        path = f"/apis/{api_version}" if name else f"/api/{api_version}"
        # An aggregated API that cannot be reached yet lists none.
        for entry in preferred.get("resources", ()):
            kind, plural = entry["responseKind"]["kind"], entry["resource"]
            resource = Resource(path, api_version, kind, plural, entry["scope"] == "Namespaced")
            names = [plural, entry.get("singularResource", ""), *entry.get("shortNames", ()), f"{plural}.{name}"]
            yield from ((one.lower(), resource) for one in names if one)
