"""The plans that tests take instead of compiling: only from the same bytes, and only whole."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.tensorrt.trtexec import plan_cache
from tests.support.tensorrt.trtexec.plan_cache import CompiledPlan, PlanCache, compilation_key

if TYPE_CHECKING:
    from pathlib import Path

COMPILED = CompiledPlan(b"plan", (("W", "[MemUsageChange] a warning"),))


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "plans")


def write_graph(folder: Path, graph: bytes = b"graph", weights: bytes = b"weights") -> Path:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(graph)
    (folder / "model.onnx.data").write_bytes(weights)
    (folder / "manifest.json").write_text(str(folder))
    return folder / "model.onnx"


def test_a_plan_comes_back_with_its_messages(cache: PlanCache) -> None:
    assert cache.read("key") is None
    cache.write("key", COMPILED)
    assert cache.read("key") == COMPILED
    assert cache.read("other") is None


def test_the_key_is_of_graph_weights_and_settings_wherever_they_lie(tmp_path: Path) -> None:
    settings = ("1.7", "level 3")
    key = compilation_key(write_graph(tmp_path / "a"), settings)
    assert compilation_key(write_graph(tmp_path / "b"), settings) == key
    changed_keys = {
        compilation_key(write_graph(tmp_path / "c", graph=b"another"), settings),
        compilation_key(write_graph(tmp_path / "d", weights=b"more"), settings),
        compilation_key(write_graph(tmp_path / "e"), ("1.7", "level 4")),
    }
    assert len(changed_keys | {key}) == 4


@pytest.mark.parametrize(
    ("name", "content"), [("model.plan", b"pla"), ("log.json", b'{"sha'), ("log.json", b"{}"), ("log.json", None)]
)
def test_a_damaged_plan_is_not_taken_and_is_replaced(cache: PlanCache, name: str, content: bytes | None) -> None:
    cache.write("key", COMPILED)
    path = cache.folder / "key" / name
    path.write_bytes(content) if content is not None else path.unlink()
    assert cache.read("key") is None
    cache.write("key", COMPILED)
    assert cache.read("key") == COMPILED


def test_large_plans_are_not_stored(cache: PlanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_cache, "_LARGEST_BYTES", 3)
    cache.write("key", COMPILED)
    assert cache.read("key") is None


def test_plans_that_nobody_reads_are_removed_after_a_month(cache: PlanCache) -> None:
    for key in ("unread", "read"):
        cache.write(key, COMPILED)
        os.utime(cache.folder / key, (time.time() - 31 * 86400,) * 2)
    cache.read("read")
    cache.write("new", COMPILED)
    assert sorted(path.name for path in cache.folder.iterdir()) == ["new", "read"]
