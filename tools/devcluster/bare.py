"""An API server alone, with etcd: no nodes, no controllers, no root. For tests of what only talks to it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.common.errors import ToolError
from tools.common.files import write
from tools.common.shell import WITH_PARENT
from tools.devcluster.build import require_built
from tools.devcluster.commands import front_proxy_flags
from tools.devcluster.configs import KubeconfigParts, audit_policy, kubeconfig
from tools.devcluster.health import Endpoint
from tools.devcluster.kubectl import Kubectl
from tools.devcluster.layout import default_root, layout_at
from tools.devcluster.pki import FRONT_PROXY, Pki, Subject
from tools.devcluster.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = "operator"
_START_SECONDS = 180.0
_ESTABLISH_SECONDS = 120.0
_STOP_SECONDS = 20.0


@dataclass(frozen=True)
class ApiServer:
    """A running API server.

    Args:
        kubeconfig: of the administrator, whom no rate limit holds back.
        user_kubeconfig: of an ordinary user who may do everything.
        kubectl: the program.
        process: of the API server.
        etcd: base URL of its etcd.
    """

    kubeconfig: Path
    user_kubeconfig: Path
    kubectl: Path
    process: _ApiServerProcess
    etcd: str

    def stop(self) -> None:
        """End the API server; etcd stays."""
        self.process.stop()

    def start(self) -> None:
        """Start it again where it was.

        Raises:
            ToolError: it does not start.
        """
        self.process.start()

    def compact(self) -> int:
        """Let etcd forget all states but the present one; returns its revision."""
        revision = int(self._etcd("range", {"key": "AA=="})["header"]["revision"])
        self._etcd("compaction", {"revision": str(revision), "physical": True})
        return revision

    def _etcd(self, verb: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.etcd}/v3/kv/{verb}", json.dumps(body).encode(), headers)  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=_STOP_SECONDS) as answer:  # noqa: S310 - the same
            parsed: dict[str, Any] = json.load(answer)
        return parsed

    @property
    def environment(self) -> dict[str, str]:
        """Variables of this process, with which `kubectl` reaches the API server as the administrator."""
        programs = f"{self.kubectl.parent}:{os.environ['PATH']}"
        return os.environ | {"KUBECONFIG": str(self.kubeconfig), "PATH": programs}

    def apply(self, manifest: Path) -> None:
        """Apply a file as the administrator, and wait until its definitions are served.

        Raises:
            ToolError: kubectl refused.
        """
        kubectl = Kubectl(self.kubectl, self.kubeconfig)
        kubectl.run("apply", "--server-side", "-f", str(manifest))
        end = time.monotonic() + _ESTABLISH_SECONDS
        while True:
            try:
                kubectl.run("wait", "--for=condition=Established", "--timeout=15s", "-f", str(manifest))
            except ToolError:
                # A definition that has no status yet is an error to kubectl, not something to wait for.
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
            else:
                return


@dataclass
class _ApiServerProcess:
    """kube-apiserver, which can be stopped and started again on its port."""

    folder: Path
    program: Path
    arguments: tuple[str, ...]
    endpoint: Endpoint
    running: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        process = self.running.enter_context(_process(self.folder, self.program, "kube-apiserver", *self.arguments))
        end = time.monotonic() + _START_SECONDS
        while not self.endpoint.healthy():
            if process.poll() is not None or time.monotonic() > end:
                log = (self.folder / "kube-apiserver.log").read_text(errors="replace")[-2000:]
                raise ToolError(f"kube-apiserver does not start:\n{log}")
            time.sleep(0.2)

    def stop(self) -> None:
        self.running.close()


@contextmanager
def api_server(audit: Path | None = None, authorization: str = "AlwaysAllow") -> Iterator[ApiServer]:
    """Run etcd and kube-apiserver on free loopback ports until the block ends; nothing is left afterwards.

    Args:
        audit: file for what was asked of it, one JSON object a line; it stays.
        authorization: mode; with RBAC the ordinary user, whose name is `USER`, may do what roles grant.

    Raises:
        ToolError: the programs are not built, or do not start.
    """
    programs = require_built(layout_at(default_root()))
    with tempfile.TemporaryDirectory(prefix="api-server-") as name, ExitStack() as running:
        folder = Path(name)
        # Under a path of its own: `devcluster down` ends what runs from its own folder.
        kube = folder / "kube"
        kube.symlink_to(programs.devcluster_kube)
        client, peer, port = free_ports(3)
        pki = Pki(folder / "pki")
        kubeconfigs = [
            _kubeconfig(folder, pki, port, Subject(user, groups))
            for user, groups in (("admin", ("system:masters",)), (USER, ()))
        ]
        running.enter_context(_process(folder, kube, "etcd", *_etcd(folder, client, peer)))
        flags = (f"--authorization-mode={authorization}", *_audit(folder, audit))
        arguments = (*_apiserver(folder, pki, client, port), *flags)
        process = _ApiServerProcess(folder, kube, arguments, _endpoint(pki, port))
        running.callback(process.stop)
        process.start()
        etcd = f"http://127.0.0.1:{client}"
        yield ApiServer(kubeconfigs[0], kubeconfigs[1], programs.kubectl, process, etcd)


def _etcd(folder: Path, client: int, peer: int) -> list[str]:
    own, other = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    return [
        f"--data-dir={folder / 'etcd'}",
        "--name=bare",
        f"--listen-client-urls={own}",
        f"--advertise-client-urls={own}",
        f"--listen-peer-urls={other}",
        f"--initial-advertise-peer-urls={other}",
        f"--initial-cluster=bare={other}",
        "--unsafe-no-fsync",
        "--log-level=warn",
        "--quota-backend-bytes=4294967296",
    ]


def _apiserver(folder: Path, pki: Pki, etcd: int, port: int) -> list[str]:
    serving = pki.issue("serving", Subject("kube-apiserver", hosts=("127.0.0.1", "localhost")))
    tokens = pki.service_account_key()
    front_proxy = pki.issue("front-proxy", FRONT_PROXY, "front-proxy")
    return [
        f"--etcd-servers=http://127.0.0.1:{etcd}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--service-cluster-ip-range=10.0.0.0/16",
        f"--cert-dir={folder / 'certificates'}",
        # Nobody makes service accounts here.
        "--disable-admission-plugins=ServiceAccount",
        f"--client-ca-file={pki.authority('cluster').certificate}",
        f"--tls-cert-file={serving.certificate}",
        f"--tls-private-key-file={serving.key}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={tokens}",
        f"--service-account-signing-key-file={tokens}",
        *front_proxy_flags(pki.authority("front-proxy"), front_proxy),
    ]


def _audit(folder: Path, log: Path | None) -> list[str]:
    if log is None:
        return []
    policy = folder / "audit-policy.yaml"
    policy.write_text(audit_policy((USER,)))
    return [f"--audit-policy-file={policy}", f"--audit-log-path={log}"]


def _kubeconfig(folder: Path, pki: Pki, port: int, subject: Subject) -> Path:
    pair = pki.issue(subject.user, subject)
    authority = pki.authority("cluster").certificate.read_bytes()
    parts = KubeconfigParts(
        f"https://127.0.0.1:{port}", authority, pair.certificate.read_bytes(), pair.key.read_bytes()
    )
    path = folder / f"{subject.user}.kubeconfig"
    write(path, kubeconfig(parts), 0o600)
    return path


@contextmanager
def _process(folder: Path, program: Path, name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs until the block ends."""
    with (folder / f"{name}.log").open("wb") as log:
        command = [*WITH_PARENT, str(program), name, *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        _stop(process)


def _endpoint(pki: Pki, port: int) -> Endpoint:
    authority, admin = pki.authority("cluster").certificate, pki.issue("admin", Subject("admin", ("system:masters",)))
    return Endpoint("127.0.0.1", port, "/readyz", authority, admin)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
