"""A small model hub for the demo and for tests: the part of the Hugging Face hub's API that downloads need.

Serves a folder of repositories, `<root>/<org>/<name>/`, with the standard library alone:

    python examples/demo_hub.py --root DIR --host 127.0.0.1 --port 8080
    HF_ENDPOINT=http://127.0.0.1:8080 hf download org/name
    python examples/demo_hub.py --root DIR --revisions      # print every repository's revision and end

A repository has one revision, computed from its files: the first 40 hex digits of the SHA-256 over all names and
contents. `main` leads to it. Not for the internet: it knows no users and no TLS.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_INFO = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?")
_TREE = re.compile(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/.*)?")
_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_CHUNK = 1 << 20
_REVISION_DIGITS = 40
_BRANCH = "main"


@dataclass(frozen=True)
class File:
    """A file that is served: where it lies, its bytes and its SHA-256."""

    path: Path
    size: int
    sha256: str


@dataclass(frozen=True)
class Repository:
    """A repository at its only revision."""

    name: str
    revision: str
    files: Mapping[str, File]

    @classmethod
    def load(cls, folder: Path) -> Repository:
        """Read all files below a folder, hidden ones excepted."""
        files = {}
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder)
            if path.is_file() and not any(part.startswith(".") for part in relative.parts):
                files[relative.as_posix()] = File(path, path.stat().st_size, _sha256(path))
        return cls(f"{folder.parent.name}/{folder.name}", _revision(files), files)

    def has(self, revision: str) -> bool:
        """Whether the revision is this one."""
        return revision in (self.revision, _BRANCH)


def revision_of(folder: Path) -> str:
    """The revision under which a repository's folder is served."""
    return Repository.load(folder).revision


def repositories(root: Path) -> Mapping[str, Repository]:
    """All repositories below a folder, by ORG/NAME."""
    folders = [path for path in sorted(root.glob("*/*")) if path.is_dir() and not path.name.startswith(".")]
    return {repository.name: repository for repository in map(Repository.load, folders)}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _revision(files: Mapping[str, File]) -> str:
    """A stable name for these contents, in the form of a commit."""
    lines = "".join(f"{name}\0{file.sha256}\n" for name, file in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:_REVISION_DIGITS]


class HubServer(ThreadingHTTPServer):
    """The server with its repositories, read once when it starts."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], root: Path, *, quiet: bool = False) -> None:
        super().__init__(address, HubHandler)
        self.repositories = repositories(root)
        self.quiet = quiet


class HubHandler(BaseHTTPRequestHandler):
    """Answers what `huggingface_hub` asks when it downloads."""

    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with a body."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer with headers alone."""
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """One line per request, unless a test wants silence."""
        if not self.server.quiet:
            super().log_message(format, *args)

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        if path in ("/", "/healthz"):
            self._json({"repositories": sorted(self.server.repositories)}, body=body)
        elif match := _INFO.fullmatch(path):
            self._info(match[1], match[2] or _BRANCH, body=body)
        elif match := _TREE.fullmatch(path):
            self._tree(match[1], match[2], body=body)
        elif match := _RESOLVE.fullmatch(path):
            self._file(match[1], match[2], match[3], body=body)
        else:
            self._missing("EntryNotFound", f"this hub has no {path}", body=body)

    def _repository(self, name: str, revision: str, *, body: bool) -> Repository | None:
        """The repository at a revision; answers with an error when there is none."""
        repository = self.server.repositories.get(name)
        if repository is None:
            self._missing("RepoNotFound", f"there is no repository {name}", body=body)
            return None
        if not repository.has(revision):
            self._missing("RevisionNotFound", f"{name} has no revision {revision}", body=body)
            return None
        return repository

    def _info(self, name: str, revision: str, *, body: bool) -> None:
        repository = self._repository(name, revision, body=body)
        if repository is None:
            return
        siblings = [
            {"rfilename": path, "size": file.size, "blobId": file.sha256[:_REVISION_DIGITS]}
            for path, file in repository.files.items()
        ]
        info = {"id": name, "modelId": name, "sha": repository.revision, "private": False, "siblings": siblings}
        self._json(info, body=body)

    def _tree(self, name: str, revision: str, *, body: bool) -> None:
        repository = self._repository(name, revision, body=body)
        if repository is not None:
            files = [
                {"type": "file", "path": path, "size": file.size, "oid": file.sha256[:_REVISION_DIGITS]}
                for path, file in repository.files.items()
            ]
            self._json(files, body=body)

    def _file(self, name: str, revision: str, path: str, *, body: bool) -> None:
        repository = self._repository(name, revision, body=body)
        if repository is None:
            return
        file = repository.files.get(path)
        if file is None:
            self._missing("EntryNotFound", f"{name} has no file {path}", body=body)
            return
        span = _span(self.headers.get("Range"), file.size)
        if span is None:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{file.size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._send_file(repository, file, span, body=body)

    def _send_file(self, repository: Repository, file: File, span: range, *, body: bool) -> None:
        partial = len(span) != file.size
        self.send_response(HTTPStatus.PARTIAL_CONTENT if partial else HTTPStatus.OK)
        if partial:
            self.send_header("Content-Range", f"bytes {span.start}-{span.stop - 1}/{file.size}")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(span)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{file.sha256}"')
        self.send_header("X-Repo-Commit", repository.revision)
        self.end_headers()
        if body:
            for piece in _pieces(file.path, span):
                self.wfile.write(piece)

    def _json(self, value: object, *, body: bool, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def _missing(self, code: str, message: str, *, body: bool) -> None:
        headers = {"X_Error_Code": code, "X_Error_Message": message}
        self._json({"error": message}, body=body, status=HTTPStatus.NOT_FOUND, **headers)


def _span(header: str | None, size: int) -> range | None:
    """The bytes that a Range header asks for; None when there are none such."""
    match = _RANGE.fullmatch(header or "")
    if not match:
        return range(size)
    begin, end = int(match[1]), min(int(match[2]), size - 1) if match[2] else size - 1
    return range(begin, end + 1) if begin <= end else None


def _pieces(path: Path, span: range) -> Iterator[bytes]:
    with path.open("rb") as stream:
        stream.seek(span.start)
        remaining = len(span)
        while remaining and (piece := stream.read(min(remaining, _CHUNK))):
            remaining -= len(piece)
            yield piece


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="a small model hub for downloads")
    parser.add_argument("--root", type=Path, required=True, help="folder of <org>/<name>/ repositories")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--revisions", action="store_true", help="print the revisions and end")
    arguments = parser.parse_args()
    if not arguments.root.is_dir():
        sys.stderr.write(f"{arguments.root} is no folder: give --root a folder of <org>/<name>/ repositories\n")
        return 64
    if arguments.revisions:
        for repository in repositories(arguments.root).values():
            print(repository.name, repository.revision)
        return 0
    with HubServer((arguments.host, arguments.port), arguments.root) as server:
        names = ", ".join(f"{item.name}@{item.revision}" for item in server.repositories.values())
        print(f"serving {names or 'nothing'} at http://{arguments.host}:{server.server_port}", flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
