"""A git repository as a GitOps controller sees it: served by git's own daemon on loopback."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from tests.support.cluster.kube import eventually
from tools.devcluster.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster.kube import Object

_START_SECONDS = 60
_NOBODY = ("-c", "user.name=studio", "-c", "user.email=studio@example.com", "-c", "commit.gpgsign=false")


@dataclass(frozen=True)
class Repository:
    """A bare repository and the working copy of somebody who pushes to it.

    Attributes:
        url: that anybody may clone.
        copy: folder of the working copy.
    """

    url: str
    copy: Path

    def commit(self, path: str, content: Object | None) -> str:
        """Write a file as YAML, or remove it where there is no content, push, and return the commit id."""
        file = self.copy / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            file.unlink()
        else:
            file.write_text(yaml.safe_dump(content))
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", f"{'Remove' if content is None else 'Write'} {path}")
        return self._push()

    def revert(self) -> str:
        """Take back the last commit, push, and return the commit id."""
        self._git("revert", "--no-edit", "HEAD")
        return self._push()

    def _push(self) -> str:
        self._git("push", "--quiet", "origin", "HEAD:main")
        return self._git("rev-parse", "HEAD")

    def _git(self, *words: str) -> str:
        return git("-C", str(self.copy), *_NOBODY, *words)


@contextmanager
def served(folder: Path) -> Iterator[Repository]:
    """An empty repository, served while the block runs."""
    bare, copy, (port,) = folder / "served" / "pipelines.git", folder / "copy", free_ports(1)
    git("init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    git("clone", "--quiet", str(bare), str(copy))
    # Not through `git`, whose child it would be.
    daemon = f"{git('--exec-path')}/git-daemon"
    argv = [daemon, "--export-all", "--listen=127.0.0.1", f"--port={port}", f"--base-path={bare.parent}"]
    url = f"git://127.0.0.1:{port}/{bare.name}"
    with (folder / "git-daemon.log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        try:
            eventually(lambda: _answers(url), _START_SECONDS, (folder / "git-daemon.log").read_text)
            yield Repository(url, copy)
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    return subprocess.run(["git", "ls-remote", url], capture_output=True, check=False).returncode == 0


def git(*words: str) -> str:
    """What git says.

    Raises:
        AssertionError: it refused; with its own words.
    """
    process = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    assert process.returncode == 0, f"git {' '.join(words)}\n{process.stderr}"
    return process.stdout.strip()
