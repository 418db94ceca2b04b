"""JSON Web Tokens and the server of their keys, as an identity provider has them."""

from __future__ import annotations

import base64
import json
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.support.loopback import serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NUMBER_BYTES = 32


@dataclass(frozen=True)
class IdentityProvider:
    """Signs tokens with one key (ES256).

    Attributes:
        issuer: that its tokens name.
        audience: that its tokens are for.
    """

    issuer: str
    audience: str
    _key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def token(self, user: str, audience: str = "", seconds: int = 3600) -> str:
        """A token of a user.

        Args:
            user: its subject.
            audience: another one than the provider's.
            seconds: that it is valid from now on; negative for one that has expired.
        """
        claims = {"iss": self.issuer, "sub": user, "aud": audience or self.audience, "exp": int(time.time()) + seconds}
        signed = f"{_part({'alg': 'ES256', 'typ': 'JWT', 'kid': 'one'})}.{_part(claims)}"
        numbers = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_text(b''.join(map(_bytes, numbers)))}"

    @property
    def key_set(self) -> bytes:
        """Its public key as a JSON Web Key Set."""
        numbers = self._key.public_key().public_numbers()
        point = {"x": _text(_bytes(numbers.x)), "y": _text(_bytes(numbers.y))}
        return json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "alg": "ES256", **point}]}).encode()


@contextmanager
def serve_keys(provider: IdentityProvider) -> Iterator[str]:
    """Serve the provider's keys on loopback while the block runs; their URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(provider.key_set)))
            self.end_headers()
            self.wfile.write(provider.key_set)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as url:
        yield f"{url}/keys"


def _part(fields: Mapping[str, object]) -> str:
    return _text(json.dumps(fields).encode())


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _bytes(number: int) -> bytes:
    return number.to_bytes(_NUMBER_BYTES, "big")
