"""Registries, their logins, and tokens: every cloud has its own way, and none of them needs a setting."""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from tools.common.errors import BAD_INPUT, ToolError
from tools.images.credentials import Login, auth_files, find_login
from tools.images.registry import Registry, is_local, parse_registry
from tools.images.registry_client import RegistryClient

if TYPE_CHECKING:
    from collections.abc import Iterator


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("text", "host", "path"),
    [
        ("127.0.0.1:15000", "127.0.0.1:15000", ""),
        ("europe-docker.pkg.dev/my-project/images", "europe-docker.pkg.dev", "my-project/images"),
        ("ghcr.io/my-organisation", "ghcr.io", "my-organisation"),
        ("docker.io/somebody", "docker.io", "somebody"),
        (
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com/team",
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com",
            "team",
        ),
        ("harbor.example.com:8443/project/a_b.c", "harbor.example.com:8443", "project/a_b.c"),
        ("registry.example.com/project/", "registry.example.com", "project"),
    ],
)
def test_the_addresses_of_common_registries_are_read(text: str, host: str, path: str) -> None:
    registry = parse_registry(text)
    assert (registry.host, registry.path) == (host, path)
    assert registry.reference("diffusion-builder", "1") == f"{text.removesuffix('/')}/diffusion-builder:1"


@pytest.mark.parametrize("text", ["", "https://registry.example.com", "registry.example.com/Team", "a b", "host/a//b"])
def test_what_is_no_registry_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ToolError) as error:
        parse_registry(text)
    assert error.value.exit_code == BAD_INPUT
    assert "registry.example.com/team" in error.value.do


def test_only_this_machines_registry_is_spoken_to_without_tls_by_itself() -> None:
    assert [is_local(name) for name in ("127.0.0.1:15000", "localhost:5000/a")] == [True, True]
    assert [parse_registry(name).plain_http for name in ("registry.example.com:5000", "10.0.0.1:5000")] == [
        False,
        False,
    ]
    assert parse_registry("10.0.0.1:5000", plain_http=True).plain_http
    assert not parse_registry("127.0.0.1:5000", ca_file=Path("ca.crt")).plain_http


def test_the_auth_files_are_those_of_podman_and_docker_unless_one_is_named() -> None:
    environment = {"HOME": "/home/a", "XDG_RUNTIME_DIR": "/run/user/1000"}
    assert [str(file) for file in auth_files(environment)] == [
        "/run/user/1000/containers/auth.json",
        "/home/a/.config/containers/auth.json",
        "/home/a/.docker/config.json",
    ]
    assert auth_files(environment | {"DOCKER_CONFIG": "/d"})[-1] == Path("/d/config.json")
    assert auth_files(environment | {"REGISTRY_AUTH_FILE": "/a.json"}) == [Path("/a.json")]


@pytest.mark.parametrize(
    ("address", "user"),
    [
        ("registry.example.com/project/team", "of the team"),
        ("registry.example.com/project/other", "of the project"),
        ("registry.example.com/elsewhere", "of the registry"),
        ("old.example.com", "of docker"),
        ("docker.io/somebody", "of Docker Hub"),
        ("unknown.example.com", None),
    ],
)
def test_the_most_specific_login_is_used(tmp_path: Path, address: str, user: str | None) -> None:
    names = {
        "registry.example.com": "of the registry",
        "registry.example.com/project": "of the project",
        "registry.example.com/project/team": "of the team",
        "https://old.example.com/v1/": "of docker",
        "https://index.docker.io/v1/": "of Docker Hub",
    }
    file = tmp_path / "auth.json"
    file.write_text(json.dumps({"auths": {name: auth(login, "secret") for name, login in names.items()}}))
    login = find_login(parse_registry(address), {"REGISTRY_AUTH_FILE": str(file)})
    assert (login.user if login else None) == user


def test_an_identity_token_is_read(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"auths": {"a.azurecr.io": {**auth("0000", ""), "identitytoken": "t"}}}))
    login = find_login(parse_registry("a.azurecr.io/team"), {"REGISTRY_AUTH_FILE": str(file)})
    assert login == Login("", "", file, identity_token="t")  # noqa: S106 - of a test


def test_a_helper_is_asked_for_the_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text('#!/bin/sh\nread server\nprintf \'{"Username": "%s", "Secret": "s"}\' "$server"\n')
    helper.chmod(0o755)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"credHelpers": {"registry.example.com": "test"}}))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    login = find_login(parse_registry("registry.example.com/a"), {"REGISTRY_AUTH_FILE": str(file)})
    assert login == Login("registry.example.com", "s", file)


def test_a_broken_auth_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "auth.json").write_text("{")
    with pytest.raises(ToolError, match=r"auth\.json cannot be read"):
        find_login(parse_registry("a.example"), {"REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")})


@dataclass
class TokenRegistry:
    """A registry that wants a token, as most hosted ones do, and remembers what it was asked."""

    host: str
    requests: list[str]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        scope = parse_qs(urlsplit(self.path).query)["scope"][0]
        is_user = self.headers.get("Authorization") == Login("user", "secret", Path()).basic
        self.server.requests.append(f"token {scope}")
        self._answer(200, {}, json.dumps({"token": f"{is_user} {scope}"}).encode())

    def do_POST(self) -> None:
        if self.path == "/token":
            self._answer_refresh_token()
        elif self._is_authorized("pull,push"):
            self._answer(202, {"Location": f"{self.path}1?state=a"})

    def _answer_refresh_token(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        is_user = (form["grant_type"], form["refresh_token"]) == (["refresh_token"], ["identity"])
        self.server.requests.append(f"refresh {form['scope'][0]}")
        self._answer(200, {}, json.dumps({"access_token": f"{is_user} {form['scope'][0]}"}).encode())

    def do_HEAD(self) -> None:
        if self._is_authorized("pull"):
            self._answer(200 if self.path.endswith("/there") else 404, {})

    def do_DELETE(self) -> None:
        if self._is_authorized("pull,push"):
            self._answer(204, {})

    def _is_authorized(self, action: str) -> bool:
        self.server.requests.append(f"{self.command} {self.path}")
        repository = self.path.removeprefix("/v2/").partition("/blobs/")[0].partition("/manifests/")[0]
        if self.headers.get("Authorization") == f"Bearer True repository:{repository}:{action}":
            return True
        realm = f'Bearer realm="http://{self.headers["Host"]}/token",service="test"'
        self._answer(401, {"WWW-Authenticate": realm})
        return False

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing on stderr."""


class _Server(HTTPServer):
    requests: list[str]


@contextmanager
def token_registry() -> Iterator[TokenRegistry]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.requests = []
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield TokenRegistry(f"127.0.0.1:{server.server_port}", server.requests)
        server.shutdown()
        thread.join()


def client(registry: TokenRegistry, login: Login | None) -> RegistryClient:
    return RegistryClient(Registry(host=registry.host, path="team", plain_http=True), login)


def test_a_token_is_fetched_for_each_scope_once_and_an_upload_is_cancelled() -> None:
    with token_registry() as registry:
        user = client(registry, Login("user", "secret", Path("auth.json")))
        assert user.has_manifest("team/small", "there")
        assert not user.has_manifest("team/small", "missing")
        user.check_push("team/small")
    assert registry.requests == [
        "HEAD /v2/team/small/manifests/there",
        "token repository:team/small:pull",
        "HEAD /v2/team/small/manifests/there",
        "HEAD /v2/team/small/manifests/missing",
        "POST /v2/team/small/blobs/uploads/",
        "token repository:team/small:pull,push",
        "POST /v2/team/small/blobs/uploads/",
        "DELETE /v2/team/small/blobs/uploads/1?state=a",
    ]


def test_an_identity_token_is_exchanged_for_a_token() -> None:
    """Azure's registry has such logins."""
    with token_registry() as registry:
        login = Login("", "", Path("auth.json"), identity_token="identity")  # noqa: S106 - of a test's own server
        assert client(registry, login).has_manifest("team/small", "there")
    assert registry.requests[1] == "refresh repository:team/small:pull"


def test_without_a_login_the_refusal_says_how_to_log_in() -> None:
    with token_registry() as registry, pytest.raises(ToolError, match="wants a login") as error:
        client(registry, None).check_push("team/small")
    assert f"docker login {registry.host}" in error.value.do


def test_a_registry_that_does_not_answer_is_named() -> None:
    with pytest.raises(ToolError, match=r"127\.0\.0\.1:9 does not answer"):
        RegistryClient(parse_registry("127.0.0.1:9"), None).has_manifest("diffusion-base", "0")
