"""Logins, from the files that docker, podman, buildah and skopeo write."""

from __future__ import annotations

import base64
import binascii
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.common.errors import ToolError, bad_input
from tools.common.shell import attempt, tail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tools.images.registry import Registry

# A helper answers this user when the password is an OAuth refresh token.
_TOKEN_USER = "<token>"  # noqa: S105 - a name, not a secret


@dataclass(frozen=True)
class Login:
    """How to identify oneself to a registry.

    Attributes:
        user: Name; empty where `identity_token` is set.
        password: Password or access token.
        identity_token: OAuth refresh token.
        file: Auth file that has it, directly or by naming a helper.
    """

    user: str
    password: str
    file: Path
    identity_token: str = ""

    @property
    def basic(self) -> str:
        """Value of an `Authorization` header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def auth_files(environment: Mapping[str, str]) -> list[Path]:
    """Return the files in which logins are looked for, in order; $REGISTRY_AUTH_FILE alone where it is set."""
    if explicit := environment.get("REGISTRY_AUTH_FILE"):
        return [Path(explicit)]
    home = Path(environment.get("HOME") or "~").expanduser()
    runtime = environment.get("XDG_RUNTIME_DIR")
    docker = environment.get("DOCKER_CONFIG")
    return [
        Path(runtime) / "containers/auth.json" if runtime else Path(f"/run/containers/{os.getuid()}/auth.json"),
        Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "containers/auth.json",
        Path(docker or home / ".docker") / "config.json",
    ]


def find_login(registry: Registry, environment: Mapping[str, str] = os.environ) -> Login | None:
    """Return the login of the first auth file that has one, or None.

    Raises:
        ToolError: A file cannot be read, or a credential helper fails.
    """
    for file in auth_files(environment):
        document = _read(file)
        login = _stored_login(document, registry, file) or _helper_login(document, registry, file)
        if login:
            return login
    return None


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        document = json.loads(file.read_text() or "{}")
    except (OSError, ValueError) as error:
        raise bad_input(f"the auth file {file} cannot be read: {error}", do="log in again, or mend the file") from error
    return document if isinstance(document, dict) else {}


def _stored_login(document: dict[str, Any], registry: Registry, file: Path) -> Login | None:
    entries = document.get("auths") or {}
    entry = next((entries[name] for name in registry.login_names if entries.get(name)), None)
    if entry is None:
        return None
    if token := entry.get("identitytoken"):
        return Login("", "", file, identity_token=token)
    try:
        user, _, password = base64.b64decode(entry.get("auth", "")).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise bad_input(f"{file} has a login for {registry.host} that is not base64", do="log in again") from error
    return Login(user, password, file) if user else None


def _helper_login(document: dict[str, Any], registry: Registry, file: Path) -> Login | None:
    """Ask `docker-credential-NAME`, as the clouds' command lines install it."""
    helpers = document.get("credHelpers") or {}
    helper = next((helpers[name] for name in registry.login_names if helpers.get(name)), document.get("credsStore"))
    if not helper:
        return None
    server = next((name for name in registry.login_names if name.startswith("https://index.")), registry.host)
    process = attempt([f"docker-credential-{helper}", "get"], stdin=server)
    if process.returncode:
        text = tail(process.stdout + process.stderr)
        if "credentials not found" in text:
            return None
        raise ToolError(f"docker-credential-{helper}, which {file} names, failed for {server}", detail=text)
    answer = json.loads(process.stdout)
    user, secret = answer["Username"], answer["Secret"]
    return Login("", "", file, identity_token=secret) if user == _TOKEN_USER else Login(user, secret, file)
