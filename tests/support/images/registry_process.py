"""A real registry on the loopback: Debian's docker-registry, with a password and TLS where a test wants them."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM: Final = "/usr/bin/docker-registry"
USER: Final = "pusher"
PASSWORD: Final = "correct horse"  # noqa: S105 - of a registry that lives as long as a test
# `htpasswd -nbB pusher "correct horse"`
HTPASSWD: Final = "pusher:$2y$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2\n"
_START_SECONDS: Final = 30
_POLL_SECONDS: Final = 0.05


@dataclass(frozen=True)
class RunningRegistry:
    """A registry that answers.

    Attributes:
        host: HOST:PORT.
        ca_file: The authority of its certificate; None for plain HTTP.
    """

    host: str
    ca_file: Path | None


@contextmanager
def running_registry(folder: Path, *, tls: bool, password: bool) -> Iterator[RunningRegistry]:
    """Run a registry with an empty storage in the folder while the block runs."""
    port = _free_port()
    http: dict[str, Any] = {"addr": f"127.0.0.1:{port}"}
    certificate = write_certificate(folder) if tls else None
    if certificate:
        http["tls"] = {"certificate": str(certificate), "key": str(folder / "key.pem")}
    settings: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": http,
    }
    if password:
        (folder / "htpasswd").write_text(HTPASSWD)
        settings["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    (folder / "registry.yaml").write_text(yaml.safe_dump(settings))
    with (
        (folder / "registry.log").open("wb") as log,
        subprocess.Popen([PROGRAM, "serve", str(folder / "registry.yaml")], stdout=log, stderr=log) as process,
    ):
        try:
            _wait_until_ready(process, port, folder / "registry.log")
            yield RunningRegistry(f"127.0.0.1:{port}", certificate)
        finally:
            process.terminate()


def write_certificate(folder: Path) -> Path:
    """Write a certificate of 127.0.0.1 that signs itself (cert.pem) and its key (key.pem); return the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry of a test")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = builder.add_extension(alternative, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return folder / "cert.pem"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            stopped = process.poll() is not None
            assert not stopped, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(_POLL_SECONDS)
        else:
            return
