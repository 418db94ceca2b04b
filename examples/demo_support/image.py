"""Asking for images through the API server, as any client outside the cluster would."""

from __future__ import annotations

import re
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from examples.client import ClientError, Request, generate
from examples.demo_support.errors import DemoError
from examples.demo_training.grading import grade

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from examples.demo_support.commands import Tools

_REPEATS = 3
_FORWARDING = re.compile(r"Forwarding from (127\.0\.0\.1:\d+)")


@dataclass(frozen=True)
class GeneratedImage:
    """One tier's image and what it costs.

    Attributes:
        path: Where it was written.
        steps: The tier.
        seconds: Median time of one request, alone on the server.
        verdict: Whether the colours are those of the prompt; empty for words that the demo's model does not know.
    """

    path: Path
    steps: int
    seconds: float
    verdict: str


def generate_image(url: str, steps: int, request: Request, path: Path) -> GeneratedImage:
    """Ask for the same image a few times, write it, and return the median time.

    Raises:
        DemoError: The server rejected, or two answers to the same request differ.
    """
    answers, seconds = [], []
    try:
        for _ in range(_REPEATS):
            start = time.monotonic()
            answers.append(generate(url, steps, request))
            seconds.append(time.monotonic() - start)
    except ClientError as error:
        raise DemoError(f"The server did not make the image with {steps} steps: {error}") from error
    if len(set(answers)) != 1:
        raise DemoError(f"{_REPEATS} answers to the same request with {steps} steps differ; they must be equal.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(answers[0])
    return GeneratedImage(path, steps, median(seconds), verdict(answers[0], request.prompt))


def verdict(png: bytes, prompt: str) -> str:
    """Say whether background and shape have the colours that the prompt names; empty where it names none."""
    with Image.open(BytesIO(png)) as image:
        pixels = np.asarray(image.convert("RGB"))
    try:
        graded = grade(pixels, prompt)
    except ValueError:
        return ""
    if graded.both:
        return "background and shape have the colours that were asked for"
    wrong = [name for name, right in (("background", graded.background), ("shape", graded.colour)) if not right]
    return f"not the colour that was asked for: {' and '.join(wrong)}"


@contextmanager
def port_forward(tools: Tools, service: str, namespace: str) -> Iterator[str]:
    """Forward a free local port to a service's port 8000; yield host:port.

    Raises:
        DemoError: kubectl cannot forward.
    """
    command = ["kubectl", "port-forward", "-n", namespace, f"service/{service}", ":8000"]
    with subprocess.Popen(  # noqa: S603 - the demo's own command
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(tools.environment)
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            match = _FORWARDING.search(line)
            if not match:
                raise DemoError(f"kubectl port-forward failed: {line.strip()}")
            yield match[1]
        finally:
            process.terminate()
