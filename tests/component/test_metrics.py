"""The recorded metrics, which dashboards and alerts are checked against, are those of the real server."""

from __future__ import annotations

import urllib.request
from typing import TYPE_CHECKING

from tests.support.queries import RECORDED, labels_of
from tests.support.triton.client import ImageRequest, send

if TYPE_CHECKING:
    from tests.support.triton.tritonserver import Server


def test_the_server_exports_every_recorded_series_with_its_labels(ddim: Server) -> None:
    send(ddim.http, ImageRequest(4, ["a red circle on a blue background"], seed=[1]))
    with urllib.request.urlopen(ddim.metrics) as answer:  # noqa: S310 - our own server
        exported = labels_of(answer.read().decode())
    recorded = labels_of(RECORDED.read_text())
    assert len(recorded) > 10
    assert {name: exported.get(name) for name in recorded} == recorded
