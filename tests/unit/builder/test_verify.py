"""Whatever is changed on the volume is found before it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from diffusion_builder.errors import ExitCode, Reason, StoreError
from diffusion_builder.serving.verify import verify
from diffusion_builder.store import Artifact, Kind, Recipe, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def repository(store: Store) -> Artifact:
    def engine(folder: Path) -> Mapping[str, Any]:
        (folder / "model.onnx").write_bytes(b"graph")
        (folder / "model.onnx.data").write_bytes(b"weights")
        return {}

    engine_artifact, _ = store.publish(Recipe(Kind.ENGINE, {}), engine)

    def write(folder: Path) -> Mapping[str, Any]:
        (folder / "models" / "m" / "1").mkdir(parents=True)
        (folder / "models" / "m" / "config.pbtxt").write_text("config")
        link = folder / "models" / "m" / "1" / "model.onnx"
        link.symlink_to(f"../../../../../engines/{engine_artifact.manifest.digest}/model.onnx")
        return {}

    return store.publish(Recipe(Kind.REPOSITORY, {}), write)[0]


def _engine(repository: Artifact) -> Path:
    return next((repository.path.parents[1] / "engines").iterdir())


def _replace_link(repository: Artifact) -> None:
    link = repository.path / "models" / "m" / "1" / "model.onnx"
    link.unlink()
    link.symlink_to("/etc/passwd")


def test_an_untouched_repository_passes_with_its_engines(store: Store, repository: Artifact) -> None:
    verified = verify(store, repository)
    assert (verified.files, verified.size) == (3, len("config" + "graph" + "weights"))


_DAMAGE: dict[str, tuple[Callable[[Artifact], object], str]] = {
    "changed engine": (lambda item: (_engine(item) / "model.onnx").write_bytes(b"grapH"), "model.onnx"),
    "cut weights": (lambda item: (_engine(item) / "model.onnx.data").write_bytes(b"weigh"), "model.onnx.data"),
    "missing weights": (lambda item: (_engine(item) / "model.onnx.data").unlink(), "model.onnx.data"),
    "changed config": (
        lambda item: (item.path / "models" / "m" / "config.pbtxt").write_text("cOnfig"), "config.pbtxt",
    ),
    "link elsewhere": (_replace_link, "model.onnx"),
    "engine gone": (lambda item: _engine(item).rename(_engine(item).with_name("x")), "gone from the store"),
}  # fmt: skip


@pytest.mark.parametrize("name", _DAMAGE)
def test_damage_is_named_with_its_file(store: Store, repository: Artifact, name: str) -> None:
    damage, says = _DAMAGE[name]
    damage(repository)
    with pytest.raises(StoreError, match=says) as caught:
        verify(store, repository)
    assert (caught.value.reason, caught.value.exit_code) == (Reason.ARTIFACT_DAMAGED, ExitCode.STORE)
