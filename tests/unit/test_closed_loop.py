"""Clients that send one request after the other: which images count, and when all clients are there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.triton.closed_loop import Countdown, images_between


@pytest.mark.parametrize(
    ("requests", "images"),
    [
        ([], 0.0),
        ([(0.0, 10.0)], 0.0),
        ([(10.0, 12.0), (12.0, 14.0)], 2.0),
        ([(9.0, 11.0)], 0.5),
        ([(19.0, 23.0)], 0.25),
        ([(5.0, 25.0)], 0.5),
        ([(20.0, 22.0)], 0.0),
    ],
    ids=["none", "before", "inside", "began before", "ended after", "around", "after"],
)
def test_of_a_request_the_part_in_the_measured_time_counts(requests: list[tuple[float, float]], images: float) -> None:
    assert images_between(requests, 10.0, 20.0) == images


def test_a_batch_that_ends_at_the_edge_changes_the_number_by_little() -> None:
    """Of eight clients in step, answered a moment before or after the time is over."""
    early, late = (
        images_between([(2 * turn + shift, 2 * turn + 2 + shift) for turn in range(-1, 6)] * 8, 0.0, 10.0)
        for shift in (-0.01, 0.01)
    )
    assert early == pytest.approx(late, rel=0.01) == pytest.approx(40.0)


def test_all_clients_are_waited_for() -> None:
    countdown = Countdown(3)
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            pool.submit(countdown.count)
        countdown.wait(10.0)


def test_clients_without_an_answer_end_the_measurement() -> None:
    countdown = Countdown(2)
    countdown.count()
    with pytest.raises(SystemExit, match="1 clients had no answer"):
        countdown.wait(0.01)
