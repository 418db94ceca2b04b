"""The three questions that are asked of a registry: who are you, is an image there, may it be pushed."""

from __future__ import annotations

import http.client
import json
import re
import urllib.parse
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from tools.common.errors import ToolError, bad_input
from tools.images.credentials import Login, find_login
from tools.images.registry import Registry, is_local

if TYPE_CHECKING:
    from collections.abc import Mapping

_MANIFESTS: Final = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in ("oci.image.manifest.v1", "oci.image.index.v1", "docker.distribution.manifest.v2")
)
_TIMEOUT_SECONDS: Final = 20
_CHALLENGE: Final = re.compile(r'(\w+)="([^"]*)"')
_REFUSED: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True)
class _Body:
    """What a request carries."""

    content: bytes = b""
    kind: str = ""


@dataclass
class RegistryClient:
    """One registry with one login. Authorization is by password or by token, whichever the registry asks for."""

    registry: Registry
    login: Login | None
    _authorizations: dict[str, str] = field(default_factory=dict)

    def has_manifest(self, repository: str, tag: str) -> bool:
        """Whether the registry has the tag.

        Raises:
            ToolError: It does not answer.
        """
        path = f"/v2/{repository}/manifests/{tag}"
        return self._ask("HEAD", path, f"repository:{repository}:pull").status == HTTPStatus.OK

    def check_push(self, repository: str) -> None:
        """Start an upload and cancel it: what would stop a push after a long build is said before it.

        Raises:
            ToolError: The registry does not answer, or refuses the upload.
        """
        scope = f"repository:{repository}:pull,push"
        answer = self._ask("POST", f"/v2/{repository}/blobs/uploads/", scope)
        if answer.status == HTTPStatus.ACCEPTED:
            self._ask("DELETE", answer.headers["location"], scope)
            return
        detail = answer.content.decode(errors="replace").strip()
        where = f"{self.registry.host}/{repository}"
        if answer.status in _REFUSED:
            raise bad_input(self._refusal(where), detail=detail, do=self._advice())
        raise bad_input(
            f"{where} takes no upload: HTTP {answer.status}",
            detail=detail,
            do="create the repository first where the registry wants that (AWS ECR does), and check the path",
        )

    def add_tag(self, repository: str, tag: str, name: str) -> None:
        """Give an image that is in the registry a second tag.

        Raises:
            ToolError: The registry does not answer, or refuses it.
        """
        scope = f"repository:{repository}:pull,push"
        manifest = self._ask("GET", f"/v2/{repository}/manifests/{tag}", scope)
        body = _Body(manifest.content, manifest.headers.get("content-type", ""))
        answer = self._ask("PUT", f"/v2/{repository}/manifests/{name}", scope, body)
        if answer.status != HTTPStatus.CREATED:
            detail = answer.content.decode(errors="replace").strip()
            raise ToolError(
                f"{self.registry.host}/{repository} takes no tag {name}: HTTP {answer.status}", detail=detail
            )

    def _refusal(self, where: str) -> str:
        if self.login is None:
            return f"{where} wants a login, and no auth file has one for it"
        return f"{where} refuses an upload by {self.login.user or 'the token'} ({self.login.file})"

    def _advice(self) -> str:
        command = f"docker login {self.registry.host} (or podman, buildah or skopeo login)"
        return command if self.login is None else f"{command} as somebody who may push there"

    def _ask(self, method: str, path: str, scope: str, body: _Body = _Body()) -> _Answer:
        answer = self._send(method, path, self._authorizations.get(scope), body)
        if answer.status != HTTPStatus.UNAUTHORIZED or scope in self._authorizations:
            return answer
        authorization = self._authorize(answer.headers.get("www-authenticate", ""), scope)
        if not authorization:
            return answer
        self._authorizations[scope] = authorization
        return self._send(method, path, authorization, body)

    def _authorize(self, challenge: str, scope: str) -> str:
        """Return the header that the challenge asks for; empty where there is no login for it."""
        if not challenge.lower().startswith("bearer "):
            return self.login.basic if self.login and self.login.user else ""
        fields = dict(_CHALLENGE.findall(challenge))
        query = {"service": fields.get("service", ""), "scope": scope}
        headers = {"Authorization": self.login.basic} if self.login and self.login.user else {}
        if self.login and self.login.identity_token:
            grant = {"grant_type": "refresh_token", "refresh_token": self.login.identity_token, "client_id": "images"}
            form = _Body(urllib.parse.urlencode(query | grant).encode(), "application/x-www-form-urlencoded")
            answer = self._request("POST", fields["realm"], headers, form)
        else:
            answer = self._request("GET", f"{fields['realm']}?{urllib.parse.urlencode(query)}", headers, _Body())
        if answer.status != HTTPStatus.OK:
            return ""
        token = json.loads(answer.content)
        return f"Bearer {token.get('token') or token['access_token']}"

    def _send(self, method: str, path: str, authorization: str | None, body: _Body) -> _Answer:
        scheme = "http" if self.registry.plain_http else "https"
        url = urllib.parse.urljoin(f"{scheme}://{self.registry.api_host}", path)
        headers = {"Accept": _MANIFESTS} | ({"Authorization": authorization} if authorization else {})
        return self._request(method, url, headers, body)

    def _request(self, method: str, url: str, headers: Mapping[str, str], body: _Body) -> _Answer:
        parts = urllib.parse.urlsplit(url)
        target = urllib.parse.urlunsplit(("", "", parts.path, parts.query, ""))
        connection = self._connection(parts)
        try:
            kind = {"Content-Type": body.kind} if body.kind else {}
            connection.request(method, target, body=body.content or None, headers={**headers, **kind})
            response = connection.getresponse()
            lower = {name.lower(): value for name, value in response.getheaders()}
            return _Answer(response.status, lower, response.read())
        except (OSError, http.client.HTTPException) as error:
            raise ToolError(
                f"The registry {parts.netloc} does not answer: {error}.", do=_connection_advice(self.registry)
            ) from error
        finally:
            connection.close()

    def _connection(self, parts: urllib.parse.SplitResult) -> http.client.HTTPConnection:
        if parts.scheme == "http":
            return http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT_SECONDS)
        return http.client.HTTPSConnection(parts.netloc, timeout=_TIMEOUT_SECONDS, context=self.registry.tls())


def open_registry(registry: Registry) -> RegistryClient:
    """Return a client with the login that the auth files have; ToolError where they cannot be read."""
    return RegistryClient(registry, find_login(registry))


def _connection_advice(registry: Registry) -> str:
    if is_local(registry.host):
        return "is its name right? The embedded one runs with the cluster (make cluster-up)"
    return "check its name; --ca-file names the authority of its certificate, --plain-http speaks without TLS"
