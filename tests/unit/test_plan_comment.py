"""The example of a plan as a comment: its shell part runs on a repository with a pull request's changes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

WORKFLOW = ROOT / "examples" / "github" / "plan-comment.yaml"
PIPELINE = (ROOT / "examples" / "pipeline.yaml").read_text()


def script() -> str:
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["plan"]["steps"]
    [run] = [step["run"] for step in steps if step.get("name") == "Plan"]
    return str(run)


def git(repository: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(repository), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository whose branch `main` has one pipeline."""
    folder = tmp_path / "repository"
    (folder / "pipelines" / "studio").mkdir(parents=True)
    git(tmp_path, "init", "--quiet", "--initial-branch", "main", str(folder))
    (folder / "pipelines" / "studio" / "old.yaml").write_text(PIPELINE)
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "first")
    git(folder, "checkout", "--quiet", "-b", "change")
    return folder


def run_plan(repository: Path, temporary: Path) -> tuple[int, str]:
    """Exit status of the step, and the comment."""
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "change")
    program = temporary / "bin" / "diffusion-operator"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m diffusion_operator "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {
        "BASE": "main",
        "KUBECONFIG_TEXT": "",
        "RUNNER_TEMP": str(temporary),
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    # As GitHub runs a step.
    argv = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script()]
    process = subprocess.run(argv, cwd=repository, env=environment, check=False)
    return process.returncode, (temporary / "comment.md").read_text()


def test_a_new_pipeline_is_planned_and_an_unchanged_one_is_not(repository: Path, tmp_path: Path) -> None:
    (repository / "pipelines" / "studio" / "new.yaml").write_text(PIPELINE)
    status, comment = run_plan(repository, tmp_path)
    assert status == 0
    assert "`pipelines/studio/new.yaml`" in comment
    assert "+ build" in comment
    assert "old.yaml" not in comment


def test_an_invalid_pipeline_fails_and_the_comment_says_why(repository: Path, tmp_path: Path) -> None:
    (repository / "pipelines" / "studio" / "old.yaml").write_text(PIPELINE.replace("type: DDIM", "type: DDIN"))
    (repository / "pipelines" / "studio" / "new.yaml").write_text(PIPELINE)
    status, comment = run_plan(repository, tmp_path)
    assert status == 1
    assert "spec.scheduler.type" in comment
    assert "+ build" in comment
