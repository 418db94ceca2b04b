"""Images are pushed to a real registry: with a path, with a password, with TLS of an own authority, and without."""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.images.registry_process import PASSWORD, USER, RunningRegistry, running_registry
from tools.common.errors import ToolError
from tools.common.packages import install_debian_packages, require_program
from tools.images.build import Options, build_all
from tools.images.paths import Paths
from tools.images.recipes import Recipe
from tools.images.registry import parse_registry
from tools.images.registry_client import open_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = Recipe(name="small", repository="small", files=(("greeting", "greeting"),))
PATH = "project/team"


@pytest.fixture(scope="module")
def paths() -> Iterator[Paths]:
    """A checkout with one recipe of one file, and a storage of its own."""
    require_program("buildah")
    if not Path("/usr/bin/docker-registry").exists():
        install_debian_packages(["docker-registry"])
    # Names of sockets below it have to be short.
    with tempfile.TemporaryDirectory(prefix="images-") as name:
        root = Path(name)
        (root / SMALL.containerfile).parent.mkdir(parents=True)
        (root / SMALL.containerfile).write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY greeting /greeting\n")
        (root / "greeting").write_text("hello\n")
        yield Paths(root=root, cache=root / "cache")


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("protected"), tls=True, password=True) as registry:
        yield registry


def push(paths: Paths, address: str, ca_file: Path | None, version_tag: str = "") -> tuple[str, list[str]]:
    """Push the small image; return its reference and what happened."""
    events: list[str] = []
    options = Options(
        registry=parse_registry(address, ca_file=ca_file),
        version_tag=version_tag,
        root_image="scratch",
        report=lambda _name, what, _seconds: events.append(what),
    )
    return build_all([SMALL], paths, options)["small"], events


def write_login(file: Path, name: str, password: str = PASSWORD) -> None:
    encoded = base64.b64encode(f"{USER}:{password}".encode()).decode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"auths": {name: {"auth": encoded}}}))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without any login, and nothing that leads elsewhere."""
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path


@pytest.mark.parametrize("place", [".docker/config.json", ".config/containers/auth.json", "run/containers/auth.json"])
def test_an_image_arrives_below_a_path_with_a_password_and_tls(
    paths: Paths, protected: RunningRegistry, home: Path, place: str
) -> None:
    write_login(home / place, protected.host)
    address = f"{protected.host}/{PATH}/{Path(place).name.partition('.')[0]}{len(place)}"
    reference, events = push(paths, address, protected.ca_file)
    assert reference.startswith(f"{address}/small:")
    assert events[-1] == "pushed"
    assert push(paths, address, protected.ca_file) == (reference, ["unchanged"])


def test_an_auth_file_of_its_own_may_name_the_project(
    paths: Paths, protected: RunningRegistry, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_login(home / "auth.json", f"{protected.host}/{PATH}")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(home / "auth.json"))
    assert push(paths, f"{protected.host}/{PATH}", protected.ca_file)[1][-1] == "pushed"


@pytest.mark.usefixtures("home")
def test_a_registry_without_tls_takes_images_below_a_path(paths: Paths, tmp_path: Path) -> None:
    with running_registry(tmp_path, tls=False, password=False) as registry:
        reference, events = push(paths, f"{registry.host}/{PATH}", None)
    assert reference.startswith(f"{registry.host}/{PATH}/small:")
    assert events[-1] == "pushed"


def test_an_image_gets_a_second_tag_whether_or_not_it_is_pushed_again(
    paths: Paths, protected: RunningRegistry, home: Path
) -> None:
    write_login(home / ".docker/config.json", protected.host)
    registry = parse_registry(f"{protected.host}/tagged", ca_file=protected.ca_file)
    for tag, last in (("0.1.0", "pushed"), ("0.2.0", "unchanged")):
        assert push(paths, registry.address, protected.ca_file, tag)[1][-1] == last
        assert open_registry(registry).has_manifest("tagged/small", tag)
    assert not open_registry(registry).has_manifest("tagged/small", "0.3.0")


def test_a_missing_and_a_wrong_login_end_before_anything_is_built(
    paths: Paths, protected: RunningRegistry, home: Path
) -> None:
    address = f"{protected.host}/{PATH}/refused"
    with pytest.raises(ToolError, match=r"wants a login, and no auth file has one") as missing:
        push(paths, address, protected.ca_file)
    assert f"docker login {protected.host}" in missing.value.do
    write_login(home / ".docker/config.json", protected.host, password="wrong")  # noqa: S106
    with pytest.raises(ToolError, match=rf"refuses an upload by {USER}"):
        push(paths, address, protected.ca_file)


@pytest.mark.usefixtures("home")
def test_an_unknown_authority_is_named_with_what_to_do(protected: RunningRegistry, tmp_path: Path) -> None:
    with running_registry(tmp_path, tls=True, password=False) as other:
        registry = parse_registry(protected.host, ca_file=other.ca_file)
        with pytest.raises(ToolError, match=r"does not answer: .*certificate") as error:
            open_registry(registry).has_manifest("small", "1")
    assert error.value.do
