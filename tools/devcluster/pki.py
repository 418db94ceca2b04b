"""Certificates of the cluster: three authorities, and one certificate per component and node."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tools.common.files import write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_DAYS = 365
_SKEW = dt.timedelta(hours=1)
_RSA_BITS = 2048


@dataclass(frozen=True)
class Pair:
    """Paths of a certificate and its key, both PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Subject:
    """Whom a certificate is for: Kubernetes reads ``user`` (CN) and ``groups`` (O) from it."""

    user: str
    groups: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


FRONT_PROXY = Subject("front-proxy-client")
"""The API server, where it passes a request on to another one."""


class Pki:
    """Makes what is missing below a folder, and keeps what is there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def authority(self, name: str) -> Pair:
        """Return the certificate authority ``name``."""
        pair = self._pair(f"{name}-ca")
        if not pair.certificate.is_file():
            key = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"devcluster-{name}-ca")])
            builder = _builder(subject, subject, key.public_key())
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            _store(pair, builder.sign(key, hashes.SHA256()), key)
        return pair

    def issue(self, name: str, subject: Subject, authority: str = "cluster") -> Pair:
        """Return the certificate ``name``, valid for client and server authentication."""
        pair = self._pair(name)
        if not pair.certificate.is_file():
            key = ec.generate_private_key(ec.SECP256R1())
            _store(pair, self._sign(subject, key, authority), key)
        return pair

    def service_account_key(self) -> Path:
        """Return the private key that signs service account tokens."""
        path = self._folder / "service-accounts.key"
        if not path.is_file():
            write(path, _pem(rsa.generate_private_key(65537, _RSA_BITS)), 0o600)
        return path

    def _pair(self, name: str) -> Pair:
        return Pair(self._folder / f"{name}.crt", self._folder / f"{name}.key")

    def _sign(self, subject: Subject, key: ec.EllipticCurvePrivateKey, authority: str) -> x509.Certificate:
        issuer = self.authority(authority)
        issuer_certificate = x509.load_pem_x509_certificate(issuer.certificate.read_bytes())
        issuer_key = serialization.load_pem_private_key(issuer.key.read_bytes(), password=None)
        if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{issuer.key} is no elliptic-curve key")
        builder = _builder(_name(subject), issuer_certificate.subject, key.public_key())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if subject.hosts:
            names = x509.SubjectAlternativeName(_alternatives(subject.hosts))
            builder = builder.add_extension(names, critical=False)
        return builder.sign(issuer_key, hashes.SHA256())


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + dt.timedelta(days=_DAYS))
    )


def _name(subject: Subject) -> x509.Name:
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in subject.groups]
    return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, subject.user)])


def _alternatives(hosts: Sequence[str]) -> list[x509.GeneralName]:
    return [_alternative(host) for host in hosts]


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _store(pair: Pair, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    # The key first: a certificate that is there says that its key is, too.
    write(pair.key, _pem(key), 0o600)
    write(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM))
