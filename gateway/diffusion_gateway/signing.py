"""Content Credentials: C2PA manifests, signed with a mounted key.

https://spec.c2pa.org. The library for it is optional, 70 MB with its dependencies; it is imported only where a key is
given.
"""

from __future__ import annotations

import importlib
import io
import json
from typing import TYPE_CHECKING, Any

from diffusion_gateway.errors import SettingsError
from diffusion_gateway.provenance import source_type

if TYPE_CHECKING:
    from diffusion_gateway.settings import SigningSettings

_LIBRARY = "c2pa"
# Thumbnails take a quarter of a second, and a second look at what was signed takes as long as signing.
_OPTIONS = {"builder": {"thumbnail": {"enabled": False}}, "verify": {"verify_after_sign": False}}
_GENERATOR = "diffusion-operator"


class ContentSigner:
    """Signs images. Not for several threads at a time.

    Args:
        settings: files of the certificates and the key.

    Raises:
        SettingsError: the library is missing, or a file is not what it should be.
    """

    def __init__(self, settings: SigningSettings) -> None:
        try:
            self._library: Any = importlib.import_module(_LIBRARY)
        except ImportError as error:
            raise SettingsError("signing needs the package c2pa-python: install diffusion-operator[c2pa].") from error
        try:
            certificates, key = settings.certificates.read_bytes(), settings.key.read_bytes()
        except OSError as error:
            raise SettingsError(f"{error.filename} cannot be read: {error.strerror}") from error
        try:
            info = self._library.C2paSignerInfo(settings.algorithm.encode(), certificates, key, None)
            self._signer = self._library.Signer.from_info(info)
            self._context = self._library.Context(settings=self._library.Settings.from_dict(_OPTIONS))
            self.sign(_SMALLEST_PNG, "png", is_edit=False)
        except self._library.C2paError as error:
            raise SettingsError(
                f"{settings.certificates} and {settings.key} cannot sign: {error}. Use a chain in PEM that begins with "
                f"the signer's certificate, and its key for {settings.algorithm}."
            ) from error

    def sign(self, content: bytes, output_format: str, *, is_edit: bool) -> bytes:
        """Put a signed manifest into an image.

        Args:
            content: PNG, JPEG or WebP.
            output_format: png, jpeg or webp.
            is_edit: whether it was made of another image.
        """
        media_type = f"image/{output_format}"
        signed = io.BytesIO()
        with self._library.Builder(
            json.dumps(_manifest(media_type, is_edit=is_edit)), context=self._context
        ) as builder:
            builder.sign(self._signer, media_type, io.BytesIO(content), signed)
        return signed.getvalue()


def _manifest(media_type: str, *, is_edit: bool) -> dict[str, object]:
    action = {"action": "c2pa.created", "digitalSourceType": source_type(is_edit=is_edit)}
    return {
        "claim_generator_info": [{"name": _GENERATOR}],
        "format": media_type,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }


# One gray pixel, to try a key with.
_SMALLEST_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
    "3a7e9b550000000a49444154789c636800000082008177cd72b60000000049454e44ae426082"
)
