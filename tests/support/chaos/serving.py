"""Area `serving`: what a real Triton with a generated repository does when clients misbehave, and when it is killed."""

from __future__ import annotations

import asyncio
import http.client
import os
import random
import re
import signal
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.builder.checkpoints import write_checkpoint
from tests.support.builder.repository import Built, build_repository
from tests.support.chaos.areas import Run, Tally, median
from tests.support.chaos.plans import Outcome, Plan, Row
from tests.support.chaos.requests import BAD_REQUESTS, BadRequest, good_body
from tests.support.triton.tritonserver import Server, TritonError, end_idle, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

AREA = "serving"
MODEL = "generate_4_pipeline"
PATH = f"/v2/models/{MODEL}/infer"
FUZZED, VANISHING, SLOW = 1000, 200, 20
_SECONDS, _IDLE_SECONDS, _PROBE_SECONDS = 60.0, 60.0, 5.0
_GROWTH = 64 << 20
_IN_FLIGHT = re.compile(r'^nv_inference_pending_request_count\{model="([^"]+)"[^}]*\} ([0-9.]+)$', re.MULTILINE)
_OK = 200


@dataclass(frozen=True)
class Answer:
    """What a client got.

    Attributes:
        status: of HTTP; 0 when the connection ended first.
        seconds: until then.
    """

    status: int
    seconds: float


async def serving(run: Run) -> list[Row]:
    """All of it, on one repository."""
    return await asyncio.to_thread(_measure, run)


def _measure(run: Run) -> list[Row]:
    checkpoint = write_checkpoint(run.folder / "checkpoint")
    steps = [{"task": "generate", "steps": (4,)}]
    digest = str(build_repository(run.folder / "store", checkpoint, pipelines=steps)[-1]["digest"])
    models, rows = Built(run.folder / "store", digest).models, []
    for number, measure in enumerate((_bad_requests, _vanishing_clients, _slow_readers, _hang, _kill)):
        if run.only in {None, number} and not run.is_over:
            with serve(models) as server:
                rows.append(measure(run, server, Plan(AREA, number, run.seed)))
    return rows


def _row(plan: Plan, promise: str, bound: str, measured: str, count: int, failures: Sequence[str]) -> Row:
    return Row(AREA, promise, bound, measured, count, plan.seed, tuple(failures[:20]))


def _bad_requests(run: Run, server: Server, plan: Plan) -> Row:
    """One bad request after the other from eight clients."""
    generator = random.Random(run.seed)  # noqa: S311 - repeatable on purpose
    count = max(1, round(FUZZED * run.scale))
    bad = [generator.choice(BAD_REQUESTS).draw(generator) for _ in range(count)]
    _parallel(lambda item: _send(server, item), bad[:40], 8)
    before, tally = _resident(server.pid), Tally()
    for item, answer in zip(bad, _parallel(lambda item: _send(server, item), bad, 8), strict=True):
        wrong = "" if answer.status >= http.client.BAD_REQUEST else f"{item.name} is answered {answer.status}"
        tally.add(Outcome(plan.id, wrong, {"seconds": answer.seconds}))
    growth, seconds = _resident(server.pid) - before, tally.values("seconds")
    failures = [*tally.failures, *_after(server)]
    if growth > _GROWTH:
        failures.append(f"{growth >> 20} MiB more than before")
    return _row(
        plan,
        "Bad requests (types, shapes, names, sizes, batches, cut and random bodies) to real Triton: an error each, "
        "none left in flight, a good request is answered afterwards",
        f"0 without an error; {_GROWTH >> 20} MiB",
        f"{len(tally.failures)} of {count:,} without an error; {seconds[-1]:.1f} s at most; {growth / 2**20:+.1f} MiB",
        count,
        failures,
    )


def _vanishing_clients(run: Run, server: Server, plan: Plan) -> Row:
    """Clients that send a whole good request, and are gone before the answer."""
    count = max(1, round(VANISHING * run.scale))
    _parallel(lambda _: _vanish(server), range(count), 50)
    start = time.monotonic()
    failures = _after(server)
    return _row(
        plan,
        "Clients close the connection once their request has arrived: all of their work ends, and a good request is "
        "answered",
        f"none in flight after {_IDLE_SECONDS:.0f} s",
        f"{count} clients; none in flight, and a good answer, after {time.monotonic() - start:.1f} s",
        count,
        failures,
    )


def _slow_readers(run: Run, server: Server, plan: Plan) -> Row:
    """Clients that read a few bytes now and then, beside one that reads as usual."""
    count = max(1, round(SLOW * run.scale))
    alone = sorted(_send(server, BadRequest("good", PATH, good_body())).seconds for _ in range(5))
    readers = [_open(server, good_body()) for _ in range(count)]
    beside = sorted(_send(server, BadRequest("good", PATH, good_body())).seconds for _ in range(10))
    for reader in readers:
        reader.close()
    failures = _after(server)
    if median(beside) > _PROBE_SECONDS:
        failures.append(f"another client waits {median(beside):.1f} s")
    return _row(
        plan,
        "Clients that do not read their answers hold up no other one",
        f"{_PROBE_SECONDS:.0f} s",
        f"another client's answer after {median(beside):.2f} s beside {count} of them (median), "
        f"{median(alone):.2f} s alone",
        count,
        failures,
    )


def _hang(_: Run, server: Server, plan: Plan) -> Row:
    """The server's process is stopped, as one that hangs."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        live = _is_live(server)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    failures = ["the liveness probe succeeds while the process is stopped"] if live else []
    return _row(
        plan,
        "The server's process hangs (SIGSTOP): its liveness probe fails, so that Kubernetes starts it again after six",
        f"{_PROBE_SECONDS:.0f} s a probe",
        "the probe has no answer" if not live else "the probe is answered",
        1,
        [*failures, *_after(server)],
    )


def _kill(_: Run, server: Server, plan: Plan) -> Row:
    """SIGKILL while eight clients wait for images."""
    with ThreadPoolExecutor(9) as pool:
        waiting = [pool.submit(_send, server, BadRequest("good", PATH, good_body(4))) for _ in range(8)]
        end = time.monotonic() + _IDLE_SECONDS
        while not any(_in_flight(server).values()) and time.monotonic() < end:
            time.sleep(0.01)
        killed = time.monotonic()
        os.kill(server.pid, signal.SIGKILL)
        answers = [future.result() for future in waiting]
        seconds = time.monotonic() - killed
    lost = sum(answer.status != _OK for answer in answers)
    failures = [] if seconds < _PROBE_SECONDS else [f"clients learn of it only after {seconds:.1f} s"]
    return _row(
        plan,
        "SIGKILL of the server under load: every client that waits learns of it at once",
        f"{_PROBE_SECONDS:.0f} s",
        f"{lost} of 8 connections ended, the last one after {seconds:.2f} s",
        8,
        failures,
    )


def _parallel(work: Callable[[Any], Any], items: Sequence[Any], clients: int) -> list[Any]:
    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(work, items))


def _connection(server: Server) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(server.http.removeprefix("http://"), timeout=_SECONDS)


def _send(server: Server, item: BadRequest) -> Answer:
    start = time.monotonic()
    with closing(_connection(server)) as connection:
        try:
            connection.request("POST", item.path, item.body, dict(item.headers))
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return Answer(0, time.monotonic() - start)
        return Answer(answer.status, time.monotonic() - start)


def _open(server: Server, body: bytes) -> http.client.HTTPConnection:
    """A request whose answer nobody reads yet."""
    connection = _connection(server)
    connection.request("POST", PATH, body)
    return connection


def _vanish(server: Server) -> None:
    _open(server, good_body()).close()


def _after(server: Server) -> list[str]:
    """What is wrong once all clients are gone: requests in flight, or no answer to a good one; ends the server."""
    answer = _send(server, BadRequest("good", PATH, good_body()))
    problems = [] if answer.status == _OK else [f"a good request is answered {answer.status}"]
    end = time.monotonic() + _IDLE_SECONDS
    while (pending := {name: count for name, count in _in_flight(server).items() if count}) and time.monotonic() < end:
        time.sleep(0.1)
    problems += [f"{count:.0f} requests of {name} wait" for name, count in pending.items()]
    try:
        end_idle(server)
    except TritonError as error:
        problems.append(f"the server, told to end, still has requests in flight: {str(error)[-300:]}")
    return problems


def _in_flight(server: Server) -> dict[str, float]:
    with urllib.request.urlopen(server.metrics, timeout=_SECONDS) as response:  # noqa: S310 - our own server
        return {name: float(count) for name, count in _IN_FLIGHT.findall(response.read().decode())}


def _is_live(server: Server) -> bool:
    try:
        with urllib.request.urlopen(f"{server.http}/v2/health/live", timeout=_PROBE_SECONDS) as response:  # noqa: S310 - same
            return bool(response.status == _OK)
    except OSError:
        return False


def _resident(pid: int) -> int:
    """Bytes of the server and of its Python models that are theirs alone."""
    return sum(_private(f"/proc/{each}/smaps_rollup") for each in (pid, *_children(pid)))


def _children(pid: int) -> list[int]:
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


def _private(path: str) -> int:
    lines = Path(path).read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))
