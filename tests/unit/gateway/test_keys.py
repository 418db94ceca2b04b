"""Keys: hashes in a file that is read again, and never a key in a log."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from diffusion_gateway.errors import ApiError, SettingsError
from diffusion_gateway.keys import KeyStore, digest_of, new_key

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def _write(path: Path, *entries: dict[str, Any]) -> None:
    path.write_text(json.dumps({"keys": entries}))


def _entry(text: str, name: str = "team", **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    return {"name": name, "sha256": digest_of(text), **fields}


def test_a_new_key_and_its_entry_belong_together(path: Path) -> None:
    text, key = new_key("team-a")
    path.write_text(f'{{"keys": [{key.model_dump_json(exclude_defaults=True)}]}}')
    assert text.startswith("sk-")
    assert text not in path.read_text()
    assert KeyStore(path).ring.identify(f"Bearer {text}") == key
    assert new_key("team-a")[0] != text


def test_a_key_has_its_limits(path: Path) -> None:
    _write(path, _entry("sk-1", priority=2, concurrent=4, waiting=0))
    key = KeyStore(path).ring.identify("bearer  sk-1 ")
    assert (key.name, key.priority, key.concurrent, key.waiting) == ("team", 2, 4, 0)


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "sk-1",
        "Basic sk-1",
        "Bearer",
        "Bearer ",
        "Bearer sk-2",
        "Bearer sk-1x",
        "Bearer \udcff",
        f"Bearer {digest_of('sk-1')}",
    ],
)
def test_no_valid_key_no_answer(path: Path, authorization: str) -> None:
    _write(path, _entry("sk-1"))
    with pytest.raises(ApiError, match="key") as caught:
        KeyStore(path).ring.identify(authorization)
    assert (caught.value.status, caught.value.body()["error"]["type"]) == (401, "authentication_error")
    assert caught.value.headers() == {"WWW-Authenticate": "Bearer"}
    assert "sk-" not in caught.value.message


def test_a_file_without_keys_lets_nobody_in(path: Path) -> None:
    _write(path)
    with pytest.raises(ApiError, match="not valid"):
        KeyStore(path).ring.identify("Bearer sk-1")


def test_keys_are_replaced_without_a_restart_and_both_are_valid_meanwhile(path: Path) -> None:
    _write(path, _entry("sk-1"))
    store = KeyStore(path)
    _write(path, _entry("sk-1"), _entry("sk-2"))
    store.refresh()
    assert [store.ring.identify(f"Bearer {text}").name for text in ("sk-1", "sk-2")] == ["team", "team"]
    _write(path, _entry("sk-2"))
    store.refresh()
    with pytest.raises(ApiError, match="not valid"):
        store.ring.identify("Bearer sk-1")


def test_a_broken_or_missing_file_changes_nothing_and_is_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _write(path, _entry("sk-1"))
    store = KeyStore(path)
    for break_file in (lambda: path.write_text('{"keys": [{"name": "sk-secret"}]}'), path.unlink):
        break_file()
        store.refresh()
        assert store.ring.identify("Bearer sk-1").name == "team"
    assert caplog.text.count("the keys stay as they are") == 2
    assert "sk-secret" not in caplog.text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "the file: Invalid JSON"),
        ('{"keys": [{"name": "a", "sha256": "00"}]}', "keys.0.sha256"),
        ('{"keys": [{"name": "a b", "sha256": "' + "0" * 64 + '"}]}', "keys.0.name"),
        ('{"keys": [{"name": "a", "sha256": "' + "0" * 64 + '", "key": "sk-1"}]}', "keys.0.key"),
        ('{"keys": [{"name": "a", "sha256": "' + "0" * 64 + '", "priority": 3}]}', "keys.0.priority"),
    ],
)
def test_a_broken_file_is_named_with_the_field(path: Path, content: str, says: str) -> None:
    path.write_text(content)
    with pytest.raises(SettingsError, match=r"keys\.json") as caught:
        KeyStore(path)
    assert says in str(caught.value)


def test_the_same_key_twice_and_a_missing_file(path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        KeyStore(path)
    _write(path, _entry("sk-1"), _entry("sk-1", name="other"))
    with pytest.raises(SettingsError, match="the same sha256"):
        KeyStore(path)
