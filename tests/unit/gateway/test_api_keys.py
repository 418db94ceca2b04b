"""Keys of the API over HTTP: who is answered, with which limits."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from diffusion_gateway.keys import digest_of
from diffusion_gateway.settings import (
    KeyLimits,
    QueueLimits,
    Settings,
)
from tests.support.gateway.api import SETTINGS, Api, run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def _keys(path: Path, **entries: dict[str, Any]) -> Settings:
    keys = [{"name": text.removeprefix("sk_"), "sha256": digest_of(text), **more} for text, more in entries.items()]
    path.write_text(json.dumps({"keys": keys}))
    return Settings(SETTINGS.pipelines, keys=path, queue=QueueLimits(4, 4), refresh_seconds=0.01)


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_without_a_valid_key_nothing_is_answered_and_no_key_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")

    async def test(api: Api) -> None:
        for headers in ({}, _bearer("sk_secret_of_another"), {"authorization": "sk_team"}):
            for answer in (await api.post(headers=headers), await api.client.get("/v1/models", headers=headers)):
                assert answer.status_code == 401
                assert "sk_" not in answer.text
        assert api.triton.requests == []
        assert (await api.post(headers=_bearer("sk_team"), prompt="a secret prompt")).status_code == 200
        assert api.value("requests_total", model="shapes", key="team", operation="generate", status="200") == 1
        assert api.value("requests_total", model="", key="", operation="generate", status="401") == 3

    run(test, _keys(tmp_path / "keys.json", sk_team={}))
    assert "key=team status=200" in caplog.text
    assert not [text for text in ("sk_secret", "sk_team", "a secret prompt") if text in caplog.text]


def test_a_key_has_its_own_limits_and_priority(tmp_path: Path) -> None:
    async def test(api: Api) -> None:
        api.triton.gate.clear()
        tasks = [asyncio.create_task(api.post(headers=_bearer("sk_batch")))]
        await api.wait_until(lambda: len(api.triton.requests) == 1)
        assert (await api.post(headers=_bearer("sk_batch"))).status_code == 429
        tasks.append(asyncio.create_task(api.post(headers=_bearer("sk_web"))))
        await api.wait_until(lambda: len(api.triton.requests) == 2)
        assert [request.priority for request, _ in api.triton.requests] == [2, 0]
        api.triton.gate.set()
        assert [(await task).status_code for task in tasks] == [200, 200]

    run(test, _keys(tmp_path / "keys.json", sk_batch={"priority": 2, "concurrent": 1, "waiting": 0}, sk_web={}))


def test_a_key_without_limits_of_its_own_has_those_of_all_keys(tmp_path: Path) -> None:
    async def test(api: Api) -> None:
        api.triton.gate.clear()
        tasks = [asyncio.create_task(api.post(headers=_bearer(key))) for key in ("sk_small", "sk_large", "sk_large")]
        await api.wait_until(lambda: len(api.triton.requests) == 3)
        assert (await api.post(headers=_bearer("sk_small"))).status_code == 429
        api.triton.gate.set()
        assert [(await task).status_code for task in tasks] == [200, 200, 200]

    settings = _keys(tmp_path / "keys.json", sk_small={}, sk_large={"concurrent": 2})
    run(test, replace(settings, key_limits=KeyLimits(concurrent=1, waiting=0)))


def test_a_key_is_replaced_while_the_gateway_runs(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"

    async def test(api: Api) -> None:
        assert (await api.post(headers=_bearer("sk_old"))).status_code == 200
        _keys(path, sk_new={})
        async with asyncio.timeout(10):
            while (await api.post(headers=_bearer("sk_old"))).status_code != 401:
                pass
        assert (await api.post(headers=_bearer("sk_new"))).status_code == 200

    run(test, _keys(path, sk_old={}))
