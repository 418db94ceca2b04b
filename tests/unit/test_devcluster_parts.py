"""Programs, certificates, images and traces on the machine."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from tools.common.errors import BAD_INPUT, ToolError, bad_input
from tools.common.files import write
from tools.common.shell import attempt, run
from tools.devcluster import build, cgroups, leftovers, preflight
from tools.devcluster.cli import main
from tools.devcluster.images import pause_archive
from tools.devcluster.layout import KUBERNETES
from tools.devcluster.pki import Pki, Subject


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    (tmp_path / "main.go").write_text("package main")
    (tmp_path / "go.mod").write_text("module x")
    return tmp_path


@pytest.mark.parametrize("name", ["main.go", "go.mod", "go.sum", "pause/main.go"])
def test_a_changed_source_is_built_again(sources: Path, name: str) -> None:
    before = build.content_key(build.KUBE, sources)
    write(sources / name, "changed")

    assert build.content_key(build.KUBE, sources) != before


def test_what_no_build_reads_does_not_cause_one(sources: Path) -> None:
    before = build.content_key(build.KUBE, sources)
    write(sources / "README.md", "text")

    assert build.content_key(build.KUBE, sources) == before
    assert build.content_key(replace(build.KUBE, tags="other"), sources) != before


def test_kubernetes_is_pinned_to_the_version_that_the_binary_reports() -> None:
    text = (build.SOURCES / "kube" / "go.mod").read_text()

    assert f"k8s.io/kubernetes v{KUBERNETES}" in text
    assert f"gitVersion=v{KUBERNETES}" in build.KUBE.ldflags
    staged = [line.split()[-1] for line in text.splitlines() if " => k8s.io/" in line]
    assert set(staged) == {f"v0.{KUBERNETES.removeprefix('1.')}"}


@pytest.mark.parametrize(
    ("text", "version"), [("go1.26.8\n", (1, 26, 8)), ("go1.27", (1, 27)), ("devel +abc", (0,)), ("", (0,))]
)
def test_a_go_that_is_no_release_counts_as_too_old(text: str, version: tuple[int, ...]) -> None:
    assert build.go_version(text) == version


def test_a_node_certificate_names_the_node_and_is_signed_by_the_clusters_authority(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    subject = Subject("system:node:a", ("system:nodes",), ("a", "10.212.0.10"))

    issued = x509.load_pem_x509_certificate(pki.issue("node-a", subject).certificate.read_bytes())

    authority = x509.load_pem_x509_certificate(pki.authority("cluster").certificate.read_bytes())
    issued.verify_directly_issued_by(authority)
    assert issued.subject.rfc4514_string() == "CN=system:node:a,O=system:nodes"
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.212.0.10"]


def test_certificates_are_kept_and_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    first = Pki(tmp_path).issue("a", Subject("a"))
    content = first.certificate.read_bytes()

    again = Pki(tmp_path).issue("a", Subject("a"))

    assert again.certificate.read_bytes() == content
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.key")} == {0o600}


def test_etcd_does_not_trust_the_clusters_certificates(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    node = x509.load_pem_x509_certificate(pki.issue("node", Subject("n")).certificate.read_bytes())
    etcd = x509.load_pem_x509_certificate(pki.authority("etcd").certificate.read_bytes())

    with pytest.raises(ValueError, match="issuer"):
        node.verify_directly_issued_by(etcd)


def test_the_pause_image_is_a_consistent_oci_image_and_always_the_same_bytes() -> None:
    archive = pause_archive(b"program", "example/pause:1", "amd64")

    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    blobs = {name.rpartition("/")[2]: data for name, data in files.items() if name.startswith("blobs/")}
    assert all(hashlib.sha256(data).hexdigest() == name for name, data in blobs.items())
    entry = json.loads(files["index.json"])["manifests"][0]
    manifest = json.loads(blobs[entry["digest"].removeprefix("sha256:")])
    assert entry["annotations"] == {"io.containerd.image.name": "example/pause:1"}
    assert {d["digest"].removeprefix("sha256:") for d in (manifest["config"], *manifest["layers"])} <= set(blobs)
    assert archive == pause_archive(b"program", "example/pause:1", "amd64")


def test_mounts_are_undone_from_the_inside_out_and_only_ours() -> None:
    info = "\n".join(
        f"1 1 0:1 / {point} rw - tmpfs tmpfs rw"
        for point in ("/c/state/n0", "/c/state/n0/x", "/c/state-of-others", "/", r"/c/state/a\040b")
    )

    assert leftovers.mounts_below(Path("/c/state"), info) == ["/c/state/n0/x", "/c/state/n0", "/c/state/a b"]


def test_cgroup_hierarchies_of_both_versions_are_found() -> None:
    mounts = (
        "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"
        "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
        "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
    )

    assert cgroups.hierarchies(mounts) == [Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup/unified")]


def test_pods_have_the_weight_of_their_nodes_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, node = tmp_path / "cpu", tmp_path / "cpu" / "devcluster" / "n0"
    node.mkdir(parents=True)
    for folder in (cpu, node.parent, node):
        (folder / "cpu.shares").write_text("1024")
    monkeypatch.setattr(cgroups, "hierarchies", lambda: [cpu, tmp_path / "memory"])
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    cgroups.make("/devcluster/n0")
    assert [(folder / "cpu.shares").read_text() for folder in (node, node.parent, cpu)] == ["3072", "3072", "1024"]
    assert list((tmp_path / "memory" / "devcluster").iterdir()) == [tmp_path / "memory" / "devcluster" / "n0"]


def test_an_error_is_one_readable_block_with_what_was_wrong_and_what_to_do() -> None:
    error = bad_input("the disk is full", detail="df\n100 %", do="make room")

    assert str(error) == "the disk is full\n  | df\n  | 100 %\n  do: make room"
    assert error.exit_code == BAD_INPUT


def test_a_program_that_is_missing_or_fails_is_an_error_with_its_output() -> None:
    assert attempt(["no-such-program-here"]).returncode == 127
    with pytest.raises(ToolError, match="status 3") as caught:
        run(["sh", "-c", "echo because >&2; exit 3"])
    assert caught.value.detail == "because"


def test_a_file_is_written_only_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"

    assert write(path, "one", 0o600) is True
    assert write(path, "one", 0o600) is False
    assert write(path, "two", 0o600) is True
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["b"]


def test_without_root_there_is_one_sentence_and_exit_code_64(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("DIFFUSION_OPERATOR_CACHE", str(tmp_path)[:40])
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    assert main(["up"]) == BAD_INPUT
    assert capsys.readouterr().err.startswith("error: the devcluster needs root")


@pytest.mark.parametrize(
    ("program", "missing_right"),
    [
        ("ip", "network devices cannot be made (not permitted)"),
        ("iptables", "the netfilter table nat cannot be read (not permitted)"),
        ("nft", "nftables cannot be read (not permitted)"),
        ("mount", "overlayfs cannot be mounted"),
    ],
)
def test_a_missing_right_is_one_sentence_about_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, missing_right: str
) -> None:
    def refuse(argv: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(argv, int(argv[0] == program), "", "not permitted")

    monkeypatch.setattr(preflight, "hierarchies", lambda: [tmp_path])
    monkeypatch.setattr(preflight, "attempt", refuse)

    with pytest.raises(ToolError) as caught:
        preflight.require_rights(tmp_path)

    assert caught.value.what.startswith(f"this machine cannot run the devcluster: {missing_right}")
    assert caught.value.exit_code == BAD_INPUT


@pytest.mark.parametrize(("mounted", "controllers"), [([], "no cgroup"), (["/proc/nowhere"], "cgroups cannot be made")])
def test_missing_cgroups_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, mounted: list[str], controllers: str
) -> None:
    monkeypatch.setattr(preflight, "hierarchies", lambda: list(map(Path, mounted)))

    with pytest.raises(ToolError, match=controllers):
        preflight.require_rights(Path("/unused"))


def test_a_nodes_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "--nodes", "/no/such/file"]) == BAD_INPUT
    assert "/no/such/file" in capsys.readouterr().err


def test_an_unknown_command_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explode"]) == BAD_INPUT
    assert "explode" in capsys.readouterr().err
