"""Reads Triton's metrics of revisions that take part in a rollout; the only state is in memory."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import httpx

from diffusion_contract.limits import METRICS_PORT
from diffusion_operator.analysis.counters import Counters, parse_counters
from diffusion_operator.analysis.window import PodHistory, ScrapeTarget, Window, summarize

TIMEOUT_SECONDS = 5.0
MAX_BYTES = 4 << 20
CONCURRENCY = 32

Key = tuple[str, str]


@dataclass(frozen=True)
class _WindowState:
    """Counters of one revision since its step began."""

    step: str
    tracks: Mapping[str, PodHistory] = field(default_factory=dict)


class MetricsScraper:
    """Reads the metrics of pods and remembers since when.

    After a restart of the operator windows restart: a verdict takes a little longer then, and is never wrong.

    Args:
        port: of the pods' metrics.
        transport: for tests; None for the network.
    """

    def __init__(self, port: int = METRICS_PORT, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._port = port
        self._transport = transport
        self._windows: dict[str, dict[Key, _WindowState]] = {}
        self._limit = asyncio.Semaphore(CONCURRENCY)

    async def windows(self, pipeline: str, scrape_targets: Iterable[ScrapeTarget]) -> Mapping[Key, Window]:
        """Requests of each revision since its step began; empty windows after the first reading.

        Args:
            pipeline: namespace/name. Windows of other revisions are forgotten.
            scrape_targets: revisions to read.
        """
        targets = list(scrape_targets)
        if not targets:
            self.forget(pipeline)
            return {}
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, transport=self._transport, trust_env=False) as client:
            readings = await asyncio.gather(*(self._read_all(client, item) for item in targets))
        before = self._windows.get(pipeline, {})
        pairs = list(zip(targets, readings, strict=True))
        now = {target.key: _advance_window(before.get(target.key), target, reading) for target, reading in pairs}
        self._windows[pipeline] = now
        return {target.key: _window(now[target.key], target, reading) for target, reading in pairs}

    def forget(self, pipeline: str) -> None:
        """No rollout is on its way, or the pipeline is gone."""
        self._windows.pop(pipeline, None)

    async def _read_all(self, client: httpx.AsyncClient, item: ScrapeTarget) -> dict[str, Counters]:
        readings = await asyncio.gather(*(self._read(client, address) for address in item.pods.values()))
        return {uid: counters for uid, counters in zip(item.pods, readings, strict=True) if counters is not None}

    async def _read(self, client: httpx.AsyncClient, address: str) -> Counters | None:
        """None whenever there is no sensible answer: no data is never a verdict."""
        host = f"[{address}]" if ":" in address else address
        try:
            async with self._limit, asyncio.timeout(TIMEOUT_SECONDS):
                text = await _text(client, f"http://{host}:{self._port}/metrics")
            return parse_counters(text)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, ValueError):
            return None


async def _text(client: httpx.AsyncClient, url: str) -> str:
    """The body, read only as far as metrics of a server can be long."""
    body = bytearray()
    async with client.stream("GET", url) as response:
        response.raise_for_status()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > MAX_BYTES:
                raise ValueError(f"{url} has more than {MAX_BYTES} bytes")
    return body.decode()


def _advance_window(before: _WindowState | None, item: ScrapeTarget, reading: Mapping[str, Counters]) -> _WindowState:
    """A pod that is new begins with its first reading; one that is gone keeps what it has done."""
    tracks = dict(before.tracks) if before is not None and before.step == item.step else {}
    for uid, counters in reading.items():
        tracks[uid] = tracks[uid].advance(counters) if uid in tracks else PodHistory(counters)
    return _WindowState(item.step, tracks)


def _window(memory: _WindowState, item: ScrapeTarget, reading: Mapping[str, Counters]) -> Window:
    total = summarize(track.total for track in memory.tracks.values())
    return replace(total, pods=len(reading), unreachable_pods=len(item.pods) - len(reading))
