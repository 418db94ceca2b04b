"""What an image says about how it was made: an XMP packet in the file, without encoding the image again. Pure.

The property is IPTC's digital source type: `trainedAlgorithmicMedia` for an image from words,
`compositeWithTrainedAlgorithmicMedia` for one that was made of a photo.
https://cv.iptc.org/newscodes/digitalsourcetype/
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from diffusion_gateway.image_files import PNG_SIGNATURE, read_header

if TYPE_CHECKING:
    from collections.abc import Iterator

_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_NAMESPACES = {
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "diffusion": "https://diffusion-operator.io/ns/1.0/",
}
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
# A segment's length has two bytes and counts itself.
_JPEG_MOST = 0xFFFF - 2 - len(_JPEG_XMP)
_PNG_XMP = b"XML:com.adobe.xmp\0\0\0\0\0"
_PNG_HEADER_END = len(PNG_SIGNATURE) + 25
_WEBP_XMP, _WEBP_ALPHA = 0x04, 0x10
_MAX_PROMPT = 8000


@dataclass(frozen=True)
class Provenance:
    """How an image was made; what is empty is not written.

    Args:
        is_edit: whether it was made of another image.
        model: name of the model.
        prompt: of the request.
        seed: of the image.
    """

    is_edit: bool = False
    model: str = ""
    prompt: str = ""
    seed: int | None = None


def source_type(*, is_edit: bool) -> str:
    """IPTC's digital source type of an image."""
    return _SOURCE_TYPE + ("compositeWithTrainedAlgorithmicMedia" if is_edit else "trainedAlgorithmicMedia")


def xmp_packet(provenance: Provenance) -> bytes:
    """The packet, in UTF-8."""
    spaces = " ".join(f"xmlns:{prefix}={quoteattr(uri)}" for prefix, uri in _NAMESPACES.items())
    properties = "".join(f"<{name}>{escape(_xml_text(value))}</{name}>" for name, value in _properties(provenance))
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {spaces}>{properties}</rdf:Description></rdf:RDF></x:xmpmeta>'
        '<?xpacket end="r"?>'
    ).encode()


def _properties(provenance: Provenance) -> Iterator[tuple[str, str]]:
    yield "Iptc4xmpExt:DigitalSourceType", source_type(is_edit=provenance.is_edit)
    yield "xmp:CreatorTool", "diffusion-operator"
    if provenance.model:
        yield "Iptc4xmpExt:AISystemUsed", provenance.model
    if provenance.prompt:
        yield "Iptc4xmpExt:AIPromptInformation", provenance.prompt[:_MAX_PROMPT]
    if provenance.seed is not None:
        yield "diffusion:seed", str(provenance.seed)


def _xml_text(text: str) -> str:
    """XML has no control characters but these, not even escaped, and no halves of surrogate pairs."""
    readable = text.encode("utf-8", "replace").decode()
    return "".join(character for character in readable if character in "\t\n\r" or _is_xml(character))


def _is_xml(character: str) -> bool:
    return character >= " " and character not in "\ufffe\uffff"


def embed(content: bytes, packet: bytes) -> bytes:
    """Put a packet into a PNG, JPEG or WebP file that the pipeline made.

    Raises:
        BrokenImageError: it is none of these.
    """
    _, header = read_header(content)
    if header.format == "png":
        # Joined, since every other way copies the pixels more than once.
        return b"".join((content[:_PNG_HEADER_END], _png_chunk(packet), memoryview(content)[_PNG_HEADER_END:]))
    if header.format == "jpeg":
        segment = _JPEG_XMP + packet[:_JPEG_MOST]
        position = _after_jfif(content)
        return content[:position] + struct.pack(">BBH", 0xFF, 0xE1, len(segment) + 2) + segment + content[position:]
    return _embed_webp(content, packet, header.width, header.height)


def _png_chunk(packet: bytes) -> bytes:
    content = b"iTXt" + _PNG_XMP + packet
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))


def _after_jfif(content: bytes) -> int:
    """Readers expect the JFIF header first."""
    marker, length = struct.unpack_from(">HH", content, 2)
    return 4 + length if marker == 0xFFE0 else 2  # noqa: PLR2004 - the marker's name


def _embed_webp(content: bytes, packet: bytes, width: int, height: int) -> bytes:
    chunks = content[12:]
    if chunks.startswith(b"VP8X"):
        flags, chunks = chunks[8], chunks[18:]
    else:
        flags = _WEBP_ALPHA if read_header(content)[1].has_alpha else 0
    canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    extended = _riff_chunk(b"VP8X", bytes([flags | _WEBP_XMP, 0, 0, 0]) + canvas)
    body = b"WEBP" + extended + chunks + _riff_chunk(b"XMP ", packet)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _riff_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
