"""Images say how they were made, in every format, and their pixels stay as they are."""

from __future__ import annotations

import io
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from diffusion_gateway.image_files import BrokenImageError
from diffusion_gateway.provenance import Provenance, embed, xmp_packet
from tests.support.gateway.pipelines import image_file

FORMATS = ("PNG", "JPEG", "WEBP")
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
EVERYTHING = Provenance(model="shapes", prompt="a <red> & 'blue' star 🟥", seed=7)


def _properties(content: bytes) -> dict[str, str | None]:
    """Properties of the packet that another reader finds in the file."""
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        packet: Any = image.info["xmp"]
    tree = ET.fromstring(packet)  # noqa: S314 - our own packet
    (description,) = tree.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    return {child.tag: child.text for child in description}


@pytest.mark.parametrize("file_format", FORMATS)
def test_an_image_says_that_a_model_made_it_and_nothing_else(file_format: str) -> None:
    properties = _properties(embed(image_file(file_format=file_format), xmp_packet(Provenance())))
    assert properties == {
        f"{IPTC}DigitalSourceType": f"{SOURCE_TYPE}trainedAlgorithmicMedia",
        "{http://ns.adobe.com/xap/1.0/}CreatorTool": "diffusion-operator",
    }


@pytest.mark.parametrize("file_format", FORMATS)
def test_an_edit_is_a_composite(file_format: str) -> None:
    properties = _properties(embed(image_file(file_format=file_format), xmp_packet(Provenance(is_edit=True))))
    assert properties[f"{IPTC}DigitalSourceType"] == f"{SOURCE_TYPE}compositeWithTrainedAlgorithmicMedia"


@pytest.mark.parametrize("file_format", FORMATS)
def test_prompt_seed_and_model_where_they_are_switched_on(file_format: str) -> None:
    properties = _properties(embed(image_file(file_format=file_format), xmp_packet(EVERYTHING)))
    assert properties[f"{IPTC}AIPromptInformation"] == EVERYTHING.prompt
    assert properties[f"{IPTC}AISystemUsed"] == "shapes"
    assert properties["{https://diffusion-operator.io/ns/1.0/}seed"] == "7"


@pytest.mark.parametrize("prompt", ["a\0b\x0bc", "\ud800 half", "\ufffe", "]]> <?xpacket end='w'?>", "x" * 32_000])
@pytest.mark.parametrize("file_format", FORMATS)
def test_any_prompt_is_written_as_readable_xml(file_format: str, prompt: str) -> None:
    content = embed(image_file(file_format=file_format), xmp_packet(Provenance(prompt=prompt)))
    assert f"{IPTC}AIPromptInformation" in _properties(content)


@pytest.mark.parametrize(
    ("mode", "color", "options"),
    [
        ("RGB", (10, 200, 30), {"format": "PNG"}),
        ("RGB", (10, 200, 30), {"format": "JPEG"}),
        ("RGB", (10, 200, 30), {"format": "WEBP"}),
        ("RGB", (10, 200, 30), {"format": "WEBP", "lossless": True}),
        ("RGBA", (10, 200, 30, 9), {"format": "WEBP", "lossless": True}),
        ("RGBA", (10, 200, 30, 9), {"format": "WEBP"}),
        ("RGB", (10, 200, 30), {"format": "WEBP", "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}),
    ],
)
def test_pixels_stay_as_they_are(mode: str, color: tuple[int, ...], options: dict[str, Any]) -> None:
    file = io.BytesIO()
    Image.new(mode, (63, 41), color).save(file, **options)
    marked = embed(file.getvalue(), xmp_packet(EVERYTHING))
    with Image.open(file) as before, Image.open(io.BytesIO(marked)) as after:
        assert (after.mode, after.size, after.format) == (before.mode, before.size, before.format)
        assert after.tobytes() == before.tobytes()


def test_what_is_no_image() -> None:
    with pytest.raises(BrokenImageError):
        embed(b"GIF89a", xmp_packet(Provenance()))
