"""The command line `diffusion-gateway`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from diffusion_contract.limits import GRPC_PORT, PIPELINE_PATTERN
from diffusion_contract.logs import configure_logging
from diffusion_gateway.errors import SettingsError
from diffusion_gateway.keys import new_key
from diffusion_gateway.settings import (
    FORWARDED_HEADERS,
    KeyLimits,
    PipelineAddress,
    ProvenanceSettings,
    QueueLimits,
    RequestLimits,
    Settings,
    SigningSettings,
    TracingSettings,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_BAD_INPUT = 64
_MIB = 1 << 20
# As gRPC takes it; neither keys nor what belongs to the client's own connection goes on.
_HEADER_NAME = r"(?!grpc-)[a-z0-9][-a-z0-9_.]{0,126}"
_NOT_FORWARDED = {
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "transfer-encoding",
}
_DEFAULTS, _TRACING = RequestLimits(), TracingSettings("")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "DIFFUSION_GATEWAY"})
@click.version_option(package_name="diffusion-operator")
def cli() -> None:
    """An OpenAI-compatible API for images in front of Triton."""


@cli.command()
@click.option(
    "--pipeline", "pipelines", multiple=True, required=True, metavar="NAME=HOST[:PORT]",
    help="Model of the API, and the gRPC address of its Triton; may be repeated.",
)  # fmt: skip
@click.option("--authority", help="Host that requests to Triton name, where routes in front of it match one.")
@click.option(
    "--forward-header", "forward_headers", multiple=True, metavar="NAME",
    help="Another header that goes on to Triton's route; may be repeated.",
)  # fmt: skip
@click.option(
    "--auth", type=click.Choice(["keys", "none"]), default="keys", show_default=True,
    help="none answers everybody.",
)  # fmt: skip
@click.option("--keys", type=click.Path(path_type=Path), help="File of the keys' hashes; read again when it changes.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, help="Port of the API and the page.")
@click.option("--metrics-port", default=8081, show_default=True, help="Port of the metrics; 0 for none.")
@click.option("--concurrent", default=16, show_default=True, help="Images that a model makes at a time.")
@click.option("--waiting", default=64, show_default=True, help="Requests that wait for a model; more get 429 at once.")
@click.option("--key-concurrent", type=click.IntRange(1), help="Images at a time of a key whose entry has no limit.")
@click.option("--key-waiting", type=click.IntRange(0), help="Requests that wait of a key whose entry has no limit.")
@click.option("--max-upload", default=_DEFAULTS.upload_bytes // _MIB, show_default=True, help="MiB of a body.")
@click.option("--max-buffered", default=_DEFAULTS.buffered_bytes // _MIB, show_default=True, help="MiB of all bodies.")
@click.option("--max-pixels", default=_DEFAULTS.pixels, show_default=True, help="Pixels of an image.")
@click.option("--timeout", default=_DEFAULTS.request_seconds, show_default=True, help="Seconds for a request.")
@click.option(
    "--embed", multiple=True, type=click.Choice(["model", "prompt", "seed"]),
    help="What images say besides how they were made; may be repeated.",
)  # fmt: skip
@click.option(
    "--sign-certificates", type=click.Path(path_type=Path),
    help="PEM chain of Content Credentials (C2PA), the signer's certificate first.",
)  # fmt: skip
@click.option("--sign-key", type=click.Path(path_type=Path), help="PEM key of that certificate.")
@click.option(
    "--sign-algorithm", type=click.Choice(["es256", "es384", "ps256", "ed25519"]), default="es256", show_default=True
)
@click.option("--trace-endpoint", metavar="URL", help="OpenTelemetry collector that gets spans, OTLP over HTTP.")
@click.option(
    "--trace-rate", type=click.IntRange(1), default=_TRACING.rate, show_default=True,
    help="One of so many requests is traced, besides those in a trace of their caller's.",
)  # fmt: skip
@click.option(
    "--trace-resource", multiple=True, metavar="NAME=VALUE",
    help="Attribute of the sender of spans, such as service.name=images; may be repeated.",
)  # fmt: skip
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def run(**options: Any) -> None:  # noqa: ANN401 - click's options
    """Serve the API and the page."""
    configure_logging(options["log_format"])
    settings = _settings(options)
    # Only this command needs gRPC, which takes half a second to import.
    from diffusion_gateway import server  # noqa: PLC0415

    server.run(settings, options["host"], options["port"], options["metrics_port"])


@cli.command("new-key")
@click.argument("name")
def print_new_key(name: str) -> None:
    """Make a key for the client NAME; prints the key, and its entry for the file of keys."""
    try:
        text, key = new_key(name)
    except ValueError as error:
        raise SettingsError(f"{name} is no name of a key: use up to 63 letters, digits, '-', '_' and '.'") from error
    click.echo(f"key:   {text}\nentry: {key.model_dump_json(exclude_defaults=True)}")


def _settings(options: dict[str, Any]) -> Settings:
    if options["auth"] == "keys" and options["keys"] is None:
        raise SettingsError("there are no keys: add --keys FILE, or --auth none to answer everybody.")
    if options["auth"] == "none" and options["keys"] is not None:
        raise SettingsError("--auth none uses no keys: leave --keys out, or --auth.")
    if (options["sign_certificates"] is None) != (options["sign_key"] is None):
        raise SettingsError("--sign-certificates and --sign-key belong together: add the other one.")
    return Settings(
        pipelines=_addresses(options["pipelines"], options["authority"] or ""),
        keys=options["keys"],
        queue=QueueLimits(options["concurrent"], options["waiting"]),
        limits=RequestLimits(
            upload_bytes=options["max_upload"] * _MIB,
            buffered_bytes=options["max_buffered"] * _MIB,
            pixels=options["max_pixels"],
            request_seconds=options["timeout"],
        ),
        provenance=ProvenanceSettings(**{name: name in options["embed"] for name in ("model", "prompt", "seed")}),
        signing=_signing(options),
        key_limits=KeyLimits(options["key_concurrent"], options["key_waiting"]),
        tracing=_tracing(options),
        forwarded_headers=_forwarded_headers(options["forward_headers"]),
    )


def _signing(options: dict[str, Any]) -> SigningSettings | None:
    certificates, key = options["sign_certificates"], options["sign_key"]
    return SigningSettings(certificates, key, options["sign_algorithm"]) if certificates is not None else None


def _tracing(options: dict[str, Any]) -> TracingSettings | None:
    endpoint, attributes = options["trace_endpoint"], []
    if endpoint is None:
        return None
    if not endpoint.startswith(("http://", "https://")):
        raise SettingsError(f"--trace-endpoint {endpoint} is no URL: use such as http://collector:4318/v1/traces.")
    for text in options["trace_resource"]:
        name, _, value = text.partition("=")
        if not name or not value:
            raise SettingsError(f"--trace-resource {text} is not NAME=VALUE: use such as service.name=images.")
        attributes.append((name, value))
    return TracingSettings(endpoint, options["trace_rate"], tuple(attributes))


def _forwarded_headers(names: Sequence[str]) -> tuple[str, ...]:
    for name in map(str.lower, names):
        if not re.fullmatch(_HEADER_NAME, name) or name in _NOT_FORWARDED:
            raise SettingsError(f"--forward-header {name} cannot go on to a route: use such as x-team.")
    return tuple(dict.fromkeys([*FORWARDED_HEADERS, *map(str.lower, names)]))


def _addresses(texts: Sequence[str], authority: str) -> tuple[PipelineAddress, ...]:
    addresses = []
    for text in texts:
        name, _, address = text.partition("=")
        if not re.fullmatch(PIPELINE_PATTERN, name) or not address:
            raise SettingsError(f"--pipeline {text} is not NAME=HOST[:PORT]: use such as shapes=shapes:8001.")
        addresses.append(PipelineAddress(name, address if ":" in address else f"{address}:{GRPC_PORT}", authority))
    if len({address.name for address in addresses}) != len(addresses):
        raise SettingsError("two pipelines have the same name: give each another one.")
    return tuple(addresses)


def main() -> NoReturn:
    """Entry point: an expected error is one readable block, never a traceback."""
    try:
        cli(standalone_mode=False)
    except SettingsError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(_BAD_INPUT)
    except click.ClickException as error:
        error.show()
        sys.exit(_BAD_INPUT)
    except click.Abort:
        sys.exit(130)
    sys.exit(0)
