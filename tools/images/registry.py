"""Where images are pushed: a registry, the path of the images in it, and how to speak to it."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.common.errors import bad_input

_ADDRESS: Final = re.compile(r"(?P<host>[A-Za-z0-9.-]+(?::\d+)?)(?P<path>(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)")
# Docker Hub's API has another host than its images, and its logins have a name of their own.
_DOCKER_HUB: Final = "docker.io"
_DOCKER_HUB_API: Final = "registry-1.docker.io"
_DOCKER_HUB_LOGIN: Final = "https://index.docker.io/v1/"
_CERTIFICATE_FOLDERS: Final = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))


@dataclass(frozen=True)
class Registry:
    """One registry and the path below which the images are.

    Attributes:
        host: `HOST` or `HOST:PORT`.
        path: `project/repository`; empty for images at the top.
        plain_http: Without TLS.
        ca_file: Certificates of an authority that the machine does not trust already.
    """

    host: str
    path: str = ""
    plain_http: bool = False
    ca_file: Path | None = None

    @property
    def address(self) -> str:
        """What a reference to an image begins with."""
        return f"{self.host}/{self.path}" if self.path else self.host

    @property
    def api_host(self) -> str:
        """`HOST[:PORT]` that answers the registry's API."""
        return _DOCKER_HUB_API if self.host == _DOCKER_HUB else self.host

    @property
    def login_names(self) -> tuple[str, ...]:
        """Names under which an auth file may have the login, the most specific first."""
        parts = self.path.split("/") if self.path else []
        paths = ["/".join([self.host, *parts[:length]]) for length in range(len(parts), -1, -1)]
        addresses = [self.host, f"https://{self.host}", f"https://{self.host}/v1/", f"https://{self.host}/v2/"]
        return (*paths, *addresses, *([_DOCKER_HUB_LOGIN] if self.host == _DOCKER_HUB else []))

    def repository(self, name: str) -> str:
        """Path of one image's repository in the registry."""
        return f"{self.path}/{name}" if self.path else name

    def reference(self, name: str, tag: str) -> str:
        """Reference of one image, as a pod names it."""
        return f"{self.address}/{name}:{tag}"

    def tls(self) -> ssl.SSLContext:
        """Return what HTTPS connections trust: the machine's authorities, containers' folders and `ca_file`."""
        context = ssl.create_default_context()
        folders = [folder / self.host for folder in _CERTIFICATE_FOLDERS]
        for file in [*(path for folder in folders for path in sorted(folder.glob("*.crt"))), *self._ca_files()]:
            context.load_verify_locations(cafile=str(file))
        return context

    def _ca_files(self) -> list[Path]:
        return [self.ca_file] if self.ca_file else []


def parse_registry(text: str, *, plain_http: bool = False, ca_file: Path | None = None) -> Registry:
    """Read `HOST[:PORT][/PATH]`; a registry on this machine's loopback is spoken to without TLS unless it has a CA.

    Raises:
        ToolError: It is something else.
    """
    match = _ADDRESS.fullmatch(text.removesuffix("/"))
    if match is None:
        raise bad_input(
            f"{text!r} is no registry", do="write HOST[:PORT][/PATH] in lower case, such as registry.example.com/team"
        )
    if plain_http and ca_file:
        raise bad_input("a registry over plain HTTP has no certificates", do="leave out --ca-file or --plain-http")
    host = match["host"]
    plain = plain_http or (is_local(host) and ca_file is None)
    return Registry(host=host, path=match["path"].strip("/"), plain_http=plain, ca_file=ca_file)


def is_local(registry: str) -> bool:
    """Whether HOST:PORT is this machine's loopback: nothing is compressed on the way to it."""
    host = registry.partition("/")[0].partition(":")[0]
    return host == "localhost" or host.startswith("127.")
