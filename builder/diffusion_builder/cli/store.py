"""`diffusion-builder store`: list and verify a store, and delete what is not needed."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from diffusion_builder.cli.command import print_error, stage_command, store_option
from diffusion_builder.errors import BadInputError, BuilderError, Reason, StoreError
from diffusion_builder.stages.progress import ProgressEvent
from diffusion_builder.stages.run import Inspection
from diffusion_builder.store import Store
from diffusion_builder.store.garbage_collection import Entry, GarbageCollectionOptions, collect
from diffusion_builder.store.listing import bytes_text, rows, table
from diffusion_builder.store.verification import verify_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusion_builder.stages.run import Result, StageContext

_DURATION = re.compile(r"(\d+)([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
# Lists in a result are cut here, to fit into a termination message.
_MAX_LISTED = 8
_DIGITS = 12


@click.group(name="store")
def store_group() -> None:
    """List and verify a store, and delete what is not needed."""


@store_group.command(name="ls")
@store_option
def store_ls(store: Path) -> None:
    """List artifacts, and what was made from them."""
    with _readable():
        artifact_rows = rows(Store(store))
    click.echo(table(artifact_rows))
    click.echo(f"{len(artifact_rows)} artifacts, {bytes_text(sum(row.size for row in artifact_rows))}", err=True)


@store_group.command(name="show")
@store_option
@click.argument("digest")
def store_show(store: Path, digest: str) -> None:
    """Print the manifest of an artifact; the beginning of its digest is enough."""
    with _readable():
        names = [(kind, name) for kind, name in Store(store).names() if name.startswith(digest)]
        if len(names) != 1:
            raise BadInputError(Reason.ARTIFACT_NOT_FOUND, f"{len(names)} artifacts begin with {digest}")
        artifact = Store(store).find(*names[0])
    if artifact is not None:
        click.echo(artifact.manifest.to_json(), nl=False)


@stage_command(store_group, "verify")
@click.argument("digest", default="")
def store_verify(context: StageContext, digest: str) -> Result:
    """Hash every file of every artifact, or of one, and compare it with the manifests."""

    def work() -> Inspection:
        report = verify_store(
            context.store, lambda name: context.reporter.report(ProgressEvent("verify", "", "hash", None, name)), digest
        )
        if report.damages:
            listed = "; ".join(f"{item.path}: {item.problem}" for item in report.damages[:_MAX_LISTED])
            raise StoreError(
                Reason.ARTIFACT_DAMAGED,
                f"{len(report.damages)} of the files in {report.artifacts} artifacts are not what was built: {listed}. "
                "Delete these artifacts' folders and let them be built again",
            )
        return Inspection(report.size, f"{report.artifacts} artifacts", {"artifacts": report.artifacts})

    return context.inspect("verify", digest, work)


@stage_command(store_group, "gc")
@click.option("--keep", multiple=True, metavar="DIGEST", help="Artifact to retain, with all that it was made from.")
@click.option("--keep-nothing", is_flag=True, help="Confirm that nothing is to be retained.")
@click.option("--grace", default="24h", show_default=True, help="Retain what is younger: 90s, 30m, 24h, 7d.")
@click.option("--timing", is_flag=True, help="Also delete TensorRT's timing caches that no retained engine used.")
@click.option("--dry-run", is_flag=True, help="Report what would be deleted without deleting it.")
def store_gc(context: StageContext, /, **arguments: Any) -> Result:  # noqa: ANN401 - click's options
    """Delete what no retained artifact was made from or links to."""
    options = _options(**arguments)
    phase = "would delete" if options.dry_run else "deleted"

    def report_entry(entry: Entry) -> None:
        text = f"{entry.kind}/{entry.digest[:_DIGITS]} {bytes_text(entry.size)}"
        context.reporter.report(ProgressEvent("gc", "", phase, None, text))

    def work() -> Inspection:
        collected = collect(context.store, options, report_entry)
        fields = {
            "dryRun": options.dry_run, "deleted": len(collected.deleted), "retained": collected.retained,
            "staleStagingFolders": collected.stale_staging, "timing": list(collected.timing[:_MAX_LISTED]),
            "missing": list(collected.missing[:_MAX_LISTED]),
        }  # fmt: skip
        return Inspection(collected.size, f"{phase} {bytes_text(collected.size)}", fields)

    return context.inspect("gc", "", work, "freedBytes")


def duration(text: str) -> float:
    """Seconds of `90s`, `30m`, `24h`, `7d`, or a plain number.

    Raises:
        BadInputError: it is none of these.
    """
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise BadInputError(Reason.INVALID_ARGUMENT, f"--grace {text!r}: give a number and s, m, h or d, such as 24h")
    return float(match[1]) * _SECONDS[match[2]]


def _options(
    *, keep: tuple[str, ...], keep_nothing: bool, grace: str, timing: bool, dry_run: bool
) -> GarbageCollectionOptions:
    digests = tuple(digest for text in keep for digest in re.split(r"[,\s]+", text) if digest)
    if bool(digests) == keep_nothing:
        raise BadInputError(Reason.INVALID_ARGUMENT, "give either --keep DIGEST, once or more often, or --keep-nothing")
    return GarbageCollectionOptions(digests, duration(grace), dry_run, timing)


@contextmanager
def _readable() -> Iterator[None]:
    """End with a readable block and the error's exit code."""
    try:
        yield
    except BuilderError as error:
        print_error(error.reason, error.message)
        raise SystemExit(int(error.exit_code)) from error
