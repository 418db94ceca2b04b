"""Asking a component whether it is healthy."""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tools.devcluster.pki import Pair

_SECONDS = 5.0
_OK = 200


@dataclass(frozen=True)
class Endpoint:
    """A health endpoint: who signed its certificate (None: plain HTTP), and what we show to it, if anything."""

    host: str
    port: int
    path: str
    authority: Path | None = None
    client: Pair | None = None

    def healthy(self) -> bool:
        """Return whether it answers 200."""
        connection = self._connection()
        try:
            connection.request("GET", self.path)
            return connection.getresponse().status == _OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self.authority is None:
            return http.client.HTTPConnection(self.host, self.port, timeout=_SECONDS)
        context = ssl.create_default_context(cafile=str(self.authority))
        if self.client:
            context.load_cert_chain(self.client.certificate, self.client.key)
        return http.client.HTTPSConnection(self.host, self.port, timeout=_SECONDS, context=context)
