"""One sheet with every task of the demo checkpoint, asked of a running server: docs/images/tasks.png.

Run it from the repository as `python -m examples.task_grid`. The server must serve `generate_20_pipeline` with previews
after 5 and 10 calls, `img2img_20_pipeline`, `inpaint_20_pipeline`, and `generate_controlnet_20_pipeline` with
`demo-controlnet` under the name `silhouette`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw

from examples.client import Arrays, ClientError, InferenceCall, Server

_SIDE, _GAP, _LINE = 128, 12, 18
_START = "a large red circle in the middle on a white background"


@dataclass(frozen=True)
class Column:
    """A task: its name, its input and its output."""

    title: str
    input_file: bytes | None
    output_file: bytes


def _request_image(
    server: Server, model: str, prompt: str, output: str = "encoded_image", **extra_inputs: float | bool | bytes
) -> bytes:
    kinds = {bool: np.bool_, float: np.float32, bytes: object}
    inputs: Arrays = {"prompt": np.array([[prompt.encode()]], object), "seed": np.array([[7]], np.int64)}
    inputs["guidance_scale"] = np.array([[2]], np.float32)
    for name, value in extra_inputs.items():
        inputs[name] = np.full((1, 1), value, kinds[type(value)])
    return server.send(
        InferenceCall(f"{model}_20_pipeline", inputs, ("encoded_image", *({output} - {"encoded_image"})))
    )[output][0]


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _polygon_png(outline: list[tuple[int, int]]) -> bytes:
    """A white shape on black, 64 x 64."""
    image = Image.new("RGB", (256, 256))
    ImageDraw.Draw(image).polygon(outline, fill="white")
    return _png(image.resize((64, 64), Image.Resampling.LANCZOS))


def columns(server: Server) -> list[Column]:
    """Ask for every task.

    Raises:
        ClientError: the server rejects, or cannot be reached.
    """
    start = _request_image(server, "generate", _START)
    mask = _polygon_png([(128, 0), (256, 0), (256, 256), (128, 256)])
    triangle = _polygon_png([(40, 60), (216, 40), (150, 216)])
    blue = "a large blue circle in the middle on a white background"
    return [
        Column("5 of 20 calls", None, _request_image(server, "generate", _START, "preview_5")),
        Column("10 of 20 calls", None, _request_image(server, "generate", _START, "preview_10")),
        Column("generate", None, start),
        Column("img2img 0.8", start, _request_image(server, "img2img", blue, input_image_file=start, strength=0.8)),
        Column(
            "inpaint",
            _beside(start, mask),
            _request_image(
                server, "inpaint", blue, input_image_file=start, mask_file=mask, strength=1.0, paste_back=True
            ),
        ),
        Column(
            "controlnet",
            triangle,
            _request_image(
                server, "generate_controlnet", "a green triangle on a yellow background",
                control_image_silhouette_file=triangle,
            ),
        ),
    ]  # fmt: skip


def _beside(start: bytes, mask: bytes) -> bytes:
    """The image with the mask laid over it in grey."""
    image = Image.open(io.BytesIO(start)).convert("RGB")
    shade = Image.open(io.BytesIO(mask)).convert("L").point(lambda value: value * 3 // 4)
    return _png(Image.composite(Image.new("RGB", image.size, "grey"), image, shade))


def sheet(tasks: list[Column]) -> Image.Image:
    """Titles, inputs, outputs."""
    step = _SIDE + _GAP
    paper = Image.new("RGB", (len(tasks) * step + _GAP, 2 * step + _LINE + _GAP), "white")
    draw = ImageDraw.Draw(paper)
    for number, task in enumerate(tasks):
        x = _GAP + number * step
        draw.text((x, _GAP), task.title, fill="black")
        for row, file in enumerate((task.input_file, task.output_file)):
            y = _GAP + _LINE + row * step
            if file is None:
                draw.text((x, y + _SIDE // 2), "(prompt only)", fill="grey")
                continue
            image = Image.open(io.BytesIO(file)).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
            paper.paste(image, (x, y))
            draw.rectangle((x, y, x + _SIDE - 1, y + _SIDE - 1), outline="lightgrey")
    return paper


@click.command()
@click.option("--url", default="127.0.0.1:8000", help="host:port of the server.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/images/tasks.png"))
def main(url: str, out: Path) -> None:
    """Draw a sheet of all tasks."""
    try:
        tasks = columns(Server(url))
    except ClientError as error:
        raise SystemExit(f"No sheet from {url}\n  what  {error.what}\n  do    {error.advice}") from None
    sheet(tasks).save(out)
    print(out)


if __name__ == "__main__":
    main()
