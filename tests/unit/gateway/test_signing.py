"""Signed images are verified by the library's own reader, and a change of their pixels is noticed."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import c2pa
import pytest

from diffusion_gateway.errors import SettingsError
from diffusion_gateway.provenance import Provenance, embed, xmp_packet
from diffusion_gateway.signing import ContentSigner
from tests.support.gateway.certificates import write_certificates
from tests.support.gateway.pipelines import image_file

if TYPE_CHECKING:
    from pathlib import Path

    from diffusion_gateway.settings import SigningSettings

# What stands before the pixels in each format.
FORMATS = {"png": b"IDAT", "jpeg": b"\xff\xda", "webp": b"VP8 "}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> SigningSettings:
    return write_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def signer(settings: SigningSettings) -> ContentSigner:
    return ContentSigner(settings)


def _read(content: bytes, output_format: str) -> c2pa.Reader:
    return c2pa.Reader(f"image/{output_format}", io.BytesIO(content))


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize(
    ("is_edit", "kind"), [(False, "trainedAlgorithmicMedia"), (True, "compositeWithTrainedAlgorithmicMedia")]
)
def test_a_signed_image_is_valid_and_says_how_it_was_made(
    signer: ContentSigner,
    output_format: str,
    is_edit: bool,  # noqa: FBT001 - a parameter
    kind: str,
) -> None:
    packet = xmp_packet(Provenance(is_edit))
    marked = embed(image_file(size=(64, 64), file_format=output_format.upper()), packet)
    signed = signer.sign(marked, output_format, is_edit=is_edit)
    reader = _read(signed, output_format)
    assert reader.get_validation_state() == "Valid"
    manifest = reader.get_active_manifest()
    assert manifest is not None
    (actions,) = [item["data"]["actions"] for item in manifest["assertions"] if item["label"] == "c2pa.actions.v2"]
    assert actions[0]["digitalSourceType"].endswith(f"/{kind}")
    assert manifest["signature_info"]["common_name"] == "Signer"
    assert packet in signed


@pytest.mark.parametrize(("output_format", "mark"), FORMATS.items())
def test_a_changed_pixel_is_noticed(signer: ContentSigner, output_format: str, mark: bytes) -> None:
    content = image_file(size=(64, 64), file_format=output_format.upper())
    signed = bytearray(signer.sign(content, output_format, is_edit=False))
    signed[signed.rindex(mark) + 24] ^= 1
    assert _read(bytes(signed), output_format).get_validation_state() == "Invalid"


def test_files_that_cannot_sign_are_named(settings: SigningSettings, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        ContentSigner(replace(settings, key=tmp_path / "key.pem"))
    other = write_certificates(tmp_path)
    other.key.write_text("no key")
    with pytest.raises(SettingsError, match="cannot sign"):
        ContentSigner(other)


def test_without_the_library_it_is_named(settings: SigningSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(SettingsError, match=r"install diffusion-operator\[c2pa\]"):
        ContentSigner(settings)


def test_nothing_of_the_key_is_in_the_image(signer: ContentSigner, settings: SigningSettings) -> None:
    signed = signer.sign(image_file(), "png", is_edit=False)
    assert settings.key.read_bytes().splitlines()[1] not in signed
    assert json.loads(_read(signed, "png").json())["active_manifest"]
