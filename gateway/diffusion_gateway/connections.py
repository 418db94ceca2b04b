"""Work that ends when its client goes away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from starlette.types import Receive

_Value = TypeVar("_Value")
_DISCONNECT = "http.disconnect"


class ClientGoneError(Exception):
    """The client closed its connection before the answer."""


async def run_while_connected(receive: Receive, work: Coroutine[Any, Any, _Value]) -> _Value:
    """Run work, and cancel it when the client goes away.

    Args:
        receive: of a request whose body has been read.
        work: what answers it.

    Raises:
        ClientGoneError: the client went away first.
    """
    task = asyncio.create_task(work)
    watcher = asyncio.create_task(_wait_for_disconnect(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        for one in (task, watcher):
            one.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != _DISCONNECT:
        pass
