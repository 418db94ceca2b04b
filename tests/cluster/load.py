"""People who ask for pictures without a pause, each request over a connection of its own, and what they are told."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from examples.client import Call, ClientError, Request, Server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LIMIT_SECONDS = 300.0


@dataclass
class Answers:
    """What came back so far; `lost` has the words of every request without a picture."""

    pictures: int = 0
    lost: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, server: Server, call: Call) -> None:
        """Ask once."""
        try:
            server.ask(call)
        except ClientError as error:
            with self.lock:
                self.lost.append(f"{server.protocol}: {error}")
        else:
            with self.lock:
                self.pictures += 1


@contextmanager
def load(servers: Mapping[str, str], request: Request, steps: int) -> Iterator[Answers]:
    """One person per protocol asks again and again until the block ends; the last answers are waited for.

    Args:
        servers: host:port by protocol.
        request: what everybody asks for.
        steps: tier.
    """
    answers, over = Answers(), threading.Event()
    call = Call(f"generate_{steps}_pipeline", request.inputs())

    def person(server: Server) -> None:
        while not over.is_set():
            answers.ask(server, call)

    asking = [Server(url, protocol, LIMIT_SECONDS) for protocol, url in servers.items()]
    people = [threading.Thread(target=person, args=(server,), daemon=True) for server in asking]
    for each in people:
        each.start()
    try:
        yield answers
    finally:
        over.set()
        for each in people:
            each.join(LIMIT_SECONDS)
    assert not any(each.is_alive() for each in people), "a request is never answered"
