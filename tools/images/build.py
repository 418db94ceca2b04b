"""Building and pushing what changed, and nothing else."""

from __future__ import annotations

import fcntl
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tools.common.packages import require_program, require_uv
from tools.common.shell import run
from tools.images.buildah import Buildah, open_buildah, uv_cache_options
from tools.images.contexts import tags, write_context
from tools.images.recipes import layer_chain
from tools.images.registry_client import RegistryClient, open_registry
from tools.images.rootfs import ensure_rootfs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tools.images.paths import Paths
    from tools.images.recipes import Recipe
    from tools.images.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is built, and where it goes.

    Attributes:
        registry: Where to push to; None to build only.
        version_tag: A second tag of every pushed image; empty for none.
        root_image: What the base stands on; empty for the one that debootstrap makes.
        report: Called with (image, what happened, seconds).
    """

    registry: Registry | None = None
    version_tag: str = ""
    root_image: str = ""
    report: Callable[[str, str, float], None]


@dataclass
class _Session:
    """One run; buildah is opened only when something is to be built or pushed."""

    paths: Paths
    options: Options
    client: RegistryClient | None
    _buildah: list[Buildah] = field(default_factory=list)

    @property
    def buildah(self) -> Buildah:
        if not self._buildah:
            self._buildah.append(open_buildah(self.paths))
        return self._buildah[0]


@dataclass(frozen=True)
class _Step:
    """One image of a run.

    Attributes:
        recipe: The image.
        tags: Name → tag, of it and everything that it stands on.
        pushed: Whether the registry has it already.
    """

    recipe: Recipe
    tags: dict[str, str]
    pushed: bool = False

    @property
    def tag(self) -> str:
        return self.tags[self.recipe.name]


def build_all(recipes: Sequence[Recipe], paths: Paths, options: Options) -> dict[str, str]:
    """Bring the images up to date; return name → reference for a pod (in the registry where one is given).

    Raises:
        ToolError: Something could not be built or pushed; a second run goes on where this one stopped.
    """
    session = _Session(paths, options, open_registry(options.registry) if options.registry else None)
    with _build_lock(paths):
        steps = [_plan(recipe, session) for recipe in recipes]
        return {step.recipe.name: _bring_up_to_date(step, session) for step in steps}


def prepare() -> None:
    """Install the programs that a build needs; ToolError where that is not possible.

    A caller that starts something else beside the build does this first: two apt-get at once get in each other's way.
    """
    for program in ("buildah", "debootstrap"):
        require_program(program)


def local_reference(recipe: Recipe, tag: str) -> str:
    """Name of the image in our own storage."""
    return f"localhost/{recipe.repository}:{tag}"


def _plan(recipe: Recipe, session: _Session) -> _Step:
    """Ask the registry about one image; nothing is built before every missing one may be pushed."""
    image_tags = tags(recipe, session.paths, root_image=session.options.root_image)
    step, client = _Step(recipe, image_tags), session.client
    if client is None:
        return step
    repository = client.registry.repository(recipe.repository)
    if client.has_manifest(repository, step.tag):
        return replace(step, pushed=True)
    client.check_push(repository)
    return step


def _bring_up_to_date(step: _Step, session: _Session) -> str:
    if session.client is None:
        _ensure_chain(step, session)
        return local_reference(step.recipe, step.tag)
    return _ensure_pushed(step, session, session.client)


def _ensure_pushed(step: _Step, session: _Session, client: RegistryClient) -> str:
    recipe, registry = step.recipe, client.registry
    reference = registry.reference(recipe.repository, step.tag)
    if step.pushed:
        session.options.report(recipe.name, "unchanged", 0)
    else:
        _ensure_chain(step, session)
        started = time.monotonic()
        session.buildah.push(local_reference(recipe, step.tag), reference, registry, client.login)
        session.options.report(recipe.name, "pushed", time.monotonic() - started)
    if session.options.version_tag:
        client.add_tag(registry.repository(recipe.repository), step.tag, session.options.version_tag)
    return reference


def _ensure_chain(step: _Step, session: _Session) -> None:
    for recipe in layer_chain(step.recipe):
        _ensure_built(recipe, step.tags, session)


def _ensure_built(recipe: Recipe, image_tags: dict[str, str], session: _Session) -> None:
    reference = local_reference(recipe, image_tags[recipe.name])
    if session.buildah.has(reference):
        return
    started = time.monotonic()
    parent = _parent_reference(recipe, image_tags, session)
    options = [f"--build-arg={argument}" for argument in (f"{recipe.parent_argument}={parent}", *recipe.arguments)]
    options += ["--target", recipe.target] if recipe.target else []
    if recipe.extras:
        cache = run([require_uv(), "cache", "dir"]).strip()
        Path(cache).mkdir(parents=True, exist_ok=True)
        options += uv_cache_options(Path(cache))
    with tempfile.TemporaryDirectory(dir=session.paths.cache) as folder:
        write_context(recipe, session.paths, Path(folder))
        session.buildah.build(session.paths.root / recipe.containerfile, Path(folder), reference, options)
    session.options.report(recipe.name, "built", time.monotonic() - started)


def _parent_reference(recipe: Recipe, image_tags: dict[str, str], session: _Session) -> str:
    if recipe.parent:
        parent = next(step for step in layer_chain(recipe) if step.name == recipe.parent)
        return local_reference(parent, image_tags[recipe.parent])
    return session.options.root_image or ensure_rootfs(session.buildah, session.paths)


@contextmanager
def _build_lock(paths: Paths) -> Iterator[None]:
    """Two builds at once would do the same work twice; the second waits and finds it finished."""
    paths.cache.mkdir(parents=True, exist_ok=True)
    with (paths.cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
