"""Asking a registry whether it has an image already."""

from __future__ import annotations

import http.client
from http import HTTPStatus

from tools.common.errors import ToolError

_MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
_TIMEOUT_SECONDS = 10


def is_local(registry: str) -> bool:
    """Whether host:port is this machine's loopback: then plain HTTP is spoken, and nothing is compressed."""
    host = registry.partition(":")[0]
    return host == "localhost" or host.startswith("127.")


def has_manifest(registry: str, repository: str, tag: str) -> bool:
    """Whether the registry has the tag; also False where it wants a login, which only the push has.

    Raises:
        ToolError: It does not answer.
    """
    kind = http.client.HTTPConnection if is_local(registry) else http.client.HTTPSConnection
    connection = kind(registry, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("HEAD", f"/v2/{repository}/manifests/{tag}", headers={"Accept": _MANIFESTS})
        return connection.getresponse().status == HTTPStatus.OK
    except OSError as error:
        raise ToolError(
            f"The registry {registry} does not answer: {error}.\n"
            "Is its name right? The embedded one runs with the cluster (make cluster-up)."
        ) from error
    finally:
        connection.close()
