"""Asking a registry whether it has an image already."""

from __future__ import annotations

import http.client
from http import HTTPStatus

from images.errors import ImageError

_MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
_TIMEOUT_SECONDS = 10


def has_manifest(registry: str, repository: str, tag: str) -> bool:
    """Whether `registry` (host:port, plain HTTP) has the tag; ImageError where it does not answer."""
    connection = http.client.HTTPConnection(registry, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("HEAD", f"/v2/{repository}/manifests/{tag}", headers={"Accept": _MANIFESTS})
        return connection.getresponse().status == HTTPStatus.OK
    except OSError as error:
        raise ImageError(
            f"The registry {registry} does not answer: {error}.\nIs the cluster up? (make cluster-up)"
        ) from error
    finally:
        connection.close()
