"""Staging folders of artifacts, and the leases of their writers.

A writer works in `<kind>/.tmp-<Unix time>-<begin of the digest>-<random>/`: the artifact grows in `artifact/`, what the
writer needs besides is in `scratch/`, and `lease` holds a Unix time that a thread renews. A folder whose last sign of
life (lease, else the time in its name) is older than the grace time belongs to a writer that was killed: the next
writer and garbage collection remove it. Clocks of machines may differ by less than the grace time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import threading
from typing import TYPE_CHECKING

from diffusion_builder.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PREFIX = ".tmp-"
# How long a writer may be silent: it may be suspended, or be in one long call of a library that lets no thread run.
STAGING_GRACE_SECONDS = 900.0
_BEAT_SECONDS = 15.0
_LEASE = "lease"
_ARTIFACT = "artifact"
_SCRATCH = "scratch"
# A lease that says so: its writer has ended in an orderly way, and another may continue with its scratch folder.
_RELEASED = "released"
_DIGEST_DIGITS = 12
_EXISTS_ERRNOS = frozenset({errno.ENOTEMPTY, errno.EEXIST})


def scratch_of(folder: Path) -> Path:
    """The folder of a writer for what is not part of the artifact, beside the folder that it fills."""
    return folder.with_name(_SCRATCH)


def name_for(digest: str, now: float) -> str:
    """A new name of a staging folder."""
    return f"{PREFIX}{int(now)}-{digest[:_DIGEST_DIGITS]}-{secrets.token_hex(4)}"


@contextlib.contextmanager
def staging(parent: Path, digest: str, clock: Callable[[], float], *, resumable: bool) -> Iterator[Path]:
    """A folder to fill; it is gone afterwards, unless it was renamed.

    Args:
        parent: folder of the kind; must exist.
        digest: of the artifact.
        clock: returns Unix time.
        resumable: take the scratch folder of an earlier writer, and leave it to a later one when something outside is
            unavailable or this one is stopped.

    Raises:
        OSError: the store cannot be written.
    """
    root = parent / name_for(digest, clock())
    folder = root / _ARTIFACT
    try:
        if not (resumable and _take_over(parent, digest, root, clock())):
            root.mkdir()
        _write_lease(root, f"{clock():.0f}")
        folder.mkdir()
        scratch_of(folder).mkdir(exist_ok=True)
        with _heartbeat(root, clock):
            yield folder
    except (UnavailableError, SystemExit):
        if resumable:
            _release(root, clock())
        raise
    finally:
        if _RELEASED not in _read_lease(root):
            shutil.rmtree(root, ignore_errors=True)


def publish(folder: Path, final: Path, *, replace: bool) -> None:
    """Flush a filled folder and give it its final name.

    Args:
        folder: what `staging` has given.
        final: where it goes. When another writer was faster, its artifact stays: it has the same inputs.
        replace: what is there is no artifact (someone has deleted a part of it), so it makes way.

    Raises:
        OSError: the store cannot be written.
    """
    _flush(folder)
    if replace:
        with contextlib.suppress(FileNotFoundError):
            final.rename(folder.with_name("replaced"))
    try:
        folder.rename(final)
    except OSError as error:
        if error.errno not in _EXISTS_ERRNOS:
            raise
    _sync(final.parent)


def heartbeat_at(path: Path) -> float | None:
    """Unix time of the last sign of life of a staging folder; None when it never had one that can be read."""
    began = path.name.removeprefix(PREFIX).split("-")[0]
    signs = [began, *_read_lease(path)]
    times = [float(sign) for sign in signs if sign.isdigit()]
    return max(times, default=None)


def sweep(parent: Path, now: float, spare: str | None = None) -> int:
    """Remove what killed writers have left.

    Args:
        parent: folder of a kind.
        now: Unix time.
        spare: digest of an artifact whose next writer will continue with what was left.

    Returns:
        How many folders or files were removed.
    """
    removed = 0
    for path in sorted(parent.glob(f"{PREFIX}*")):
        sign = heartbeat_at(path)
        if sign is None:
            # Not one of ours, or cut off: from now on its age is known.
            with contextlib.suppress(OSError):
                path.rename(parent / name_for("unknown", now))
        elif _is_expired(sign, now) and not (spare and f"-{spare[:_DIGEST_DIGITS]}-" in path.name):
            remove(path)
            removed += not path.exists()
    return removed


def remove(path: Path) -> None:
    """Delete a folder or file as far as possible; what stays is tried again by the next sweep."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _is_expired(sign: float, now: float) -> bool:
    # A time far in the future comes from a wrong clock, and must not retain a folder for ever.
    return abs(now - sign) > STAGING_GRACE_SECONDS


def _take_over(parent: Path, digest: str, root: Path, now: float) -> bool:
    """Take over what a writer of the same artifact has left; renaming decides who of several gets it."""
    for path in sorted(parent.glob(f"{PREFIX}*-{digest[:_DIGEST_DIGITS]}-*")):
        sign = heartbeat_at(path)
        ended = _RELEASED in _read_lease(path) or (sign is not None and _is_expired(sign, now))
        if ended and (path / _SCRATCH).is_dir():
            with contextlib.suppress(OSError):
                path.rename(root)
                shutil.rmtree(root / _ARTIFACT, ignore_errors=True)
                return True
    return False


@contextlib.contextmanager
def _heartbeat(root: Path, clock: Callable[[], float]) -> Iterator[None]:
    """Renew the lease until the block ends."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(_BEAT_SECONDS):
            # A full disk must not end the writer here: its own next write fails with a better message.
            with contextlib.suppress(OSError):
                _write_lease(root, f"{clock():.0f}")

    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _write_lease(root: Path, text: str) -> None:
    fresh = root / f"{_LEASE}.new"
    fresh.write_text(text)
    os.replace(fresh, root / _LEASE)  # noqa: PTH105 - says that a file in the way is replaced


def _release(root: Path, now: float) -> None:
    """Leave the scratch folder to the next writer; when none comes within the grace time it is removed."""
    shutil.rmtree(root / _ARTIFACT, ignore_errors=True)
    with contextlib.suppress(OSError):
        _write_lease(root, f"{now:.0f} {_RELEASED}")


def _read_lease(root: Path) -> tuple[str, ...]:
    """The words of a lease: a time, and perhaps that it was released."""
    try:
        return tuple((root / _LEASE).read_text().split())
    except (OSError, ValueError):
        return ()


def _flush(folder: Path) -> None:
    """Bring every file and folder to disk before the rename makes them visible."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network filesystems refuse it for folders; they write these through at once.
        if not (error.errno == errno.EINVAL and path.is_dir()):
            raise
    finally:
        os.close(descriptor)
