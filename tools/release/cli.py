"""`python -m tools.release check|set-version|build|push-charts|dry-run`."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tools.common.cli import run_command
from tools.common.errors import bad_input
from tools.common.packages import require_uv
from tools.common.paths import ROOT
from tools.common.shell import run
from tools.images.recipes import CHART_NAMES, by_name
from tools.release import files, signatures, versions
from tools.release.charts import push_charts
from tools.release.files import PushedImage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_folder = click.option(
    "--out", "folder", default="out/release", show_default=True, type=click.Path(file_okay=False, path_type=Path)
)
_pushed = click.argument("pushed", type=click.Path(exists=True, dir_okay=False, path_type=Path))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 (something failed) or 64 (change something)."""
    return run_command(cli, "python -m tools.release", arguments)


@click.group()
def cli() -> None:
    """Make the files of a release, all from one tag."""


@cli.command()
@click.argument("tag")
def check(tag: str) -> None:
    """Fail unless every file of the checkout has the version of TAG, such as v0.2.0."""
    versions.check_version(ROOT, versions.version_of(tag))


@cli.command("set-version")
@click.argument("version")
def write_version(version: str) -> None:
    """Write VERSION into every file that has one."""
    for name in versions.set_version(ROOT, versions.version_of(version)):
        click.echo(name)


@cli.command()
@click.argument("tag")
@_pushed
@_folder
def build(tag: str, pushed: Path, folder: Path) -> None:
    """Make all files of the release TAG; PUSHED has its images, a line REPOSITORY@sha256:… for each."""
    _build(versions.version_of(tag), files.read_pushed(pushed.read_text().splitlines()), folder)


@cli.command("push-charts")
@click.argument("address", metavar="REGISTRY/PATH")
@_folder
@click.option("--plain-http", is_flag=True, help="Without TLS.")
def push_all_charts(address: str, folder: Path, *, plain_http: bool) -> None:
    """Push the charts of a built release and print them by digest."""
    for reference in push_charts(folder, address, ["--plain-http"] if plain_http else []):
        click.echo(reference)


@cli.command("dry-run")
@_folder
def dry_run(folder: Path) -> None:
    """Build, package, sign with a key of its own, and verify: everything but the images, and nothing is published.

    The images are the ones that the chart names, with a digest that no image has.
    """
    version = _present_version()
    shutil.rmtree(folder, ignore_errors=True)
    repositories = [by_name(name).repository for name in CHART_NAMES]
    images = {name: PushedImage(f"registry.invalid/release/{name}", f"sha256:{'0' * 64}") for name in repositories}
    _build(version, images, folder)
    with tempfile.TemporaryDirectory() as keys:
        private, public = signatures.make_key(Path(keys))
        sums, signature = folder / signatures.CHECKSUMS, folder / signatures.SIGNATURE
        signatures.sign(sums, private, signature)
        signatures.verify(sums, public, signature)
        shutil.copyfile(public, folder / f"{signatures.CHECKSUMS}.pub")
    for name in signatures.check_checksums(folder):
        click.echo(f"  {name}")
    _check_wheel(folder, version)
    click.echo(f"release {version}: built, signed and verified in {folder}; nothing was published")


def _present_version() -> str:
    chart = (ROOT / "charts" / "diffusion-operator" / "Chart.yaml").read_text()
    [version] = [line.partition(": ")[2] for line in chart.splitlines() if line.startswith("version: ")]
    return version


def _build(version: str, images: Mapping[str, PushedImage], folder: Path) -> None:
    versions.check_version(ROOT, version)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise bad_input(f"{folder} is not empty", do="name a new folder")
    files.build_package(folder)
    files.package_charts(folder)
    files.write_bills(folder)
    files.write_manifest(folder, version, images)
    files.write_values(folder, images)
    signatures.write_checksums(folder)


def _check_wheel(folder: Path, version: str) -> None:
    """The wheel installs by itself, and its command line says the version."""
    [wheel] = folder.glob("*.whl")
    command = [str(require_uv()), "tool", "run", "--quiet", "--from", f"{wheel}[operator]"]
    for program in ("diffusion-operator", "kubectl-diffusion"):
        output = run([*command, program, "--version"], env={"PYTHONPATH": ""})
        if version not in output:
            raise bad_input(f"{program} of {wheel.name} says {output.strip()!r}", do="run `set-version`")
