"""Charts go to a real registry as OCI artifacts, with a login and TLS, and come back by the digest that was printed."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.support.images.registry_process import PASSWORD, PROGRAM, USER, running_registry
from tools.common.errors import ToolError
from tools.common.packages import install_debian_packages
from tools.common.shell import run
from tools.release.charts import push_charts
from tools.release.files import CHARTS, find_helm, package_charts


def test_charts_are_pulled_by_the_digest_that_pushing_them_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path(PROGRAM).exists():
        install_debian_packages(["docker-registry"])
    packages = tmp_path / "packages"
    packages.mkdir()
    package_charts(packages)
    with running_registry(tmp_path, tls=True, password=True) as registry:
        login = {"auths": {registry.host: {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}}}
        (tmp_path / "config.json").write_text(json.dumps(login))
        monkeypatch.setenv("HELM_REGISTRY_CONFIG", str(tmp_path / "config.json"))
        tls = ["--ca-file", str(registry.ca_file)]
        references = push_charts(packages, f"{registry.host}/project/charts", tls)
        for chart, reference in zip(CHARTS, references, strict=True):
            assert reference.startswith(f"{registry.host}/project/charts/{chart}@sha256:")
            run([find_helm(), "pull", f"oci://{reference}", *tls, "--destination", tmp_path])
    assert {path.read_bytes() for path in tmp_path.glob("*.tgz")} == {path.read_bytes() for path in packages.iterdir()}


def test_a_registry_that_refuses_is_quoted(tmp_path: Path) -> None:
    package_charts(tmp_path)
    with pytest.raises(ToolError, match=r"helm could not push diffusion-operator-crds"):
        push_charts(tmp_path, "127.0.0.1:9/charts", ["--plain-http"])
