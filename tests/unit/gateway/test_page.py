"""The page: three files under a strict policy, which hold nothing of anybody else."""

from __future__ import annotations

import re

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from diffusion_gateway.page_routes import page_routes


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Starlette(routes=page_routes()))


@pytest.mark.parametrize(
    ("path", "kind"), [("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")]
)
def test_every_file_has_its_type_and_the_policy(client: TestClient, path: str, kind: str) -> None:
    answer = client.get(path)
    assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_policy_has_nothing_to_refuse(client: TestClient) -> None:
    html, script, style = (client.get(path).text for path in ("/", "/page.js", "/page.css"))
    assert re.findall(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=", html) == []
    assert re.findall(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script) == []
    assert re.findall(r"https?://", html + script + style) == []


def test_other_files_are_not_served(client: TestClient) -> None:
    assert [client.get(path).status_code for path in ("/page.py", "/../app.py", "/page/page.js")] == [404] * 3
