"""200 writers are killed at random moments: nothing half-made is ever visible, and nothing of it stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from diffusion_builder.serving.verify import verify
from diffusion_builder.store import STAGING_GRACE_SECONDS, Kind, Recipe, Store
from diffusion_builder.store.garbage_collection import GarbageCollectionOptions, collect

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_KILLS = 200
# Forks writers from one warm interpreter, and kills each at a random moment of its work.
_NURSERY = """
import json, os, random, signal, statistics, sys, time
from pathlib import Path
from diffusion_builder.store import Kind, Recipe, Store

def write(folder):
    (folder / "sub").mkdir()
    for index in range(4):
        (folder / "sub" / f"{index}.bin").write_bytes(bytes([index]) * 20_000)
    return {"ensembles": []}

def work(seed):
    store = Store(Path(sys.argv[1]))
    for number in range(1_000):
        store.publish(Recipe(Kind.REPOSITORY, {"number": (seed // 3, number)}), write)

def measured(number):
    begin = time.monotonic()
    Store(Path(sys.argv[1])).publish(Recipe(Kind.REPOSITORY, {"undisturbed": number}), write)
    return time.monotonic() - begin

# Moments before, in the middle of and after a write, however busy the machine is.
longest = 2 * statistics.median(measured(number) for number in range(5))
rng, killed = random.Random(1), 0
for seed in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        work(seed)
        os._exit(0)
    time.sleep(rng.uniform(0.0, longest))
    os.kill(child, signal.SIGKILL)
    killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
print(json.dumps(killed))
"""


def _write(folder: Path) -> Mapping[str, Any]:
    (folder / "a").write_text("hello")
    return {}


def _hidden(root: Path) -> list[str]:
    return [path.name for path in (root / "repositories").iterdir() if path.name.startswith(".tmp-")]


def test_killed_writers_leave_no_visible_half_artifact_and_no_litter(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _NURSERY, str(tmp_path), str(_KILLS)]
    process = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=300)
    assert json.loads(process.stdout) == _KILLS
    published = list(Store(tmp_path).artifacts())
    for artifact in published:
        assert verify(Store(tmp_path), artifact).files == 4
    hidden = _hidden(tmp_path)
    names = {path.name for path in (tmp_path / "repositories").iterdir()}
    assert names - set(hidden) == {artifact.manifest.digest for artifact in published}
    # Both must have happened, or the moments were chosen badly.
    assert len(published) > 3
    assert hidden
    later = Store(tmp_path, clock=lambda: time.time() + STAGING_GRACE_SECONDS + 60)
    later.publish(Recipe(Kind.REPOSITORY, {"after": 1}), _write)
    assert _hidden(tmp_path) == []


def test_collection_removes_what_a_killed_writer_left(tmp_path: Path) -> None:
    now = time.time()
    staging_folder = tmp_path / "onnx" / f".tmp-{int(now)}-{'0' * 12}-0"
    (staging_folder / "artifact").mkdir(parents=True)
    collect(Store(tmp_path, lambda: now), GarbageCollectionOptions(keep=(), grace=0))
    assert staging_folder.exists()
    collect(Store(tmp_path, lambda: now + STAGING_GRACE_SECONDS + 1), GarbageCollectionOptions(keep=(), grace=0))
    assert not staging_folder.exists()
