#!/usr/bin/env python3
"""Ask a served pipeline for a picture: a small script to copy.

pip install 'tritonclient[http]'
kubectl port-forward service/shapes 8000 &
python client.py "a red circle on a blue background" --steps 20 --seed 7 --out picture.png
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


@dataclass(frozen=True, kw_only=True)
class Request:
    """One picture; what is None is left to the server.

    Attributes:
        prompt: What the picture shows.
        negative_prompt: What it shall not show.
        seed: Start of the noise; the same seed gives the same picture.
        guidance_scale: How closely the prompt is followed; 1 is not at all.
        height: Pixels, a multiple of 8.
        width: Pixels, a multiple of 8.
    """

    prompt: str
    negative_prompt: str | None = None
    seed: int | None = None
    guidance_scale: float | None = None
    height: int | None = None
    width: int | None = None

    def inputs(self) -> list[triton.InferInput]:
        """Return the inputs that are set; each has the shape [1, 1]: one sample, one value."""
        values = {
            "prompt": ("BYTES", np.object_, self.prompt.encode()),
            "negative_prompt": ("BYTES", np.object_, self.negative_prompt and self.negative_prompt.encode()),
            "seed": ("INT64", np.int64, self.seed),
            "guidance_scale": ("FP32", np.float32, self.guidance_scale),
            "height": ("INT32", np.int32, self.height),
            "width": ("INT32", np.int32, self.width),
        }
        return [_input(name, *value) for name, value in values.items() if value[2] is not None]


def generate(url: str, steps: int, request: Request, *, timeout: float = 120.0) -> bytes:
    """Return the picture as PNG.

    Args:
        url: host:port of the server's HTTP port.
        steps: Tier; the ensemble `generate_<steps>_pipeline` must be served.
        request: What is asked for.
        timeout: Seconds to wait for the answer.

    Raises:
        tritonclient.utils.InferenceServerException: The server refused; its message says what to send.
    """
    with triton.InferenceServerClient(url, connection_timeout=timeout, network_timeout=timeout) as client:
        wanted = [triton.InferRequestedOutput("encoded_image")]
        answer = client.infer(f"generate_{steps}_pipeline", request.inputs(), outputs=wanted)
    picture = answer.as_numpy("encoded_image")
    if picture is None:
        raise RuntimeError("The server answered without a picture.")
    return bytes(picture.reshape(-1)[0])


def _input(name: str, kind: str, dtype: type, value: object) -> triton.InferInput:
    tensor = triton.InferInput(name, [1, 1], kind)
    tensor.set_data_from_numpy(np.array([[value]], dtype=dtype))
    return tensor


def main() -> None:
    """Read the arguments, ask, write the file."""
    parser = argparse.ArgumentParser(description="Ask a served pipeline for a picture.")
    parser.add_argument("prompt")
    parser.add_argument("--url", default="127.0.0.1:8000", help="host:port of the server")
    parser.add_argument("--steps", type=int, default=20, help="tier: which ensemble is asked")
    parser.add_argument("--negative-prompt")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--guidance-scale", type=float)
    parser.add_argument("--height", type=int, help="pixels, a multiple of 8")
    parser.add_argument("--width", type=int, help="pixels, a multiple of 8")
    parser.add_argument("--out", type=Path, default=Path("picture.png"))
    arguments = vars(parser.parse_args())
    url, steps, out = (arguments.pop(name) for name in ("url", "steps", "out"))
    try:
        out.write_bytes(generate(url, steps, Request(**arguments)))
    except (InferenceServerException, OSError) as error:
        raise SystemExit(f"{url} made no picture: {error}") from None
    print(out)


if __name__ == "__main__":
    main()
