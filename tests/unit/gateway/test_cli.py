"""The command line: no keys, no start; and what is wrong is said in one line."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from diffusion_gateway.cli import _addresses, _settings, cli
from diffusion_gateway.errors import SettingsError
from diffusion_gateway.keys import digest_of
from diffusion_gateway.settings import PipelineAddress, QueueLimits

TRACED = ("--trace-endpoint", "http://collector:4318/v1/traces")


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["run", *arguments])
    return str(result.exception) if isinstance(result.exception, SettingsError) else result.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Missing option '--pipeline'"),
        (("--pipeline", "shapes=shapes"), "add --keys FILE, or --auth none"),
        (("--pipeline", "shapes=shapes", "--auth", "none", "--keys", "keys.json"), "--auth none uses no keys"),
        (("--pipeline", "shapes", "--auth", "none"), "is not NAME=HOST[:PORT]"),
        (("--pipeline", "Shapes=x", "--auth", "none"), "is not NAME=HOST[:PORT]"),
        (("--pipeline", "a=x", "--pipeline", "a=y", "--auth", "none"), "two pipelines have the same name"),
        (("--pipeline", "a=x", "--auth", "none", "--trace-endpoint", "c:4318"), "is no URL"),
        (("--pipeline", "a=x", "--auth", "none", *TRACED, "--trace-resource", "shapes"), "is not NAME=VALUE"),
        (("--pipeline", "a=x", "--keys", "/no/keys.json"), "/no/keys.json cannot be read"),
    ],
)
def test_what_is_wrong_is_said(arguments: tuple[str, ...], says: str) -> None:
    assert says in _run(*arguments)


def test_addresses_have_tritons_port() -> None:
    expected = (PipelineAddress("a", "a.b.svc:8001"), PipelineAddress("c", "127.0.0.1:9"))
    assert _addresses(["a=a.b.svc", "c=127.0.0.1:9"], "") == expected


@pytest.mark.parametrize("name", ["Authorization", "cookie", "grpc-timeout", "a b", ""])
def test_a_header_that_must_not_go_on_is_refused(name: str) -> None:
    assert "cannot go on to a route" in _run("--pipeline", "a=b", "--auth", "none", "--forward-header", name)


def test_options_become_settings() -> None:
    command = cli.commands["run"]
    context = command.make_context("run", ["--pipeline", "a=b", "--auth", "none", "--embed", "seed", "--waiting", "0"])
    settings = _settings(context.params)
    assert (settings.keys, settings.queue) == (None, QueueLimits(16, 0))
    assert (settings.provenance.seed, settings.provenance.prompt) == (True, False)
    assert settings.limits.upload_bytes == 20 << 20


def test_a_new_key_is_printed_with_its_entry() -> None:
    result = CliRunner().invoke(cli, ["new-key", "team-a"])
    key, entry = (line.split(maxsplit=1)[1] for line in result.output.splitlines())
    assert json.loads(entry) == {"name": "team-a", "sha256": digest_of(key)}


def test_a_name_that_is_none() -> None:
    result = CliRunner().invoke(cli, ["new-key", "team a"])
    assert "is no name of a key" in str(result.exception)
