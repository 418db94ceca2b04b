"""`helm test`: the operator is healthy, and a pipeline, if one is given, generates an image. Standard library only."""

import json
import sys
import time
import urllib.error
import urllib.request

DEADLINE_SECONDS = 60
IMAGE_SECONDS = 600


def send(url: str, body: object, timeout: float) -> bytes:
    """The body of the response; an error status ends the test with the server's message."""
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        sys.exit(f"{url} answered {error.code}: {error.read().decode(errors='replace')[:500]}")


def wait(url: str) -> None:
    """Until the server answers."""
    end = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            send(url, None, 5)
            return
        except OSError as error:
            if time.monotonic() > end:
                sys.exit(f"{url} does not answer within {DEADLINE_SECONDS} s: {error}")
            time.sleep(1)


def generate(url: str) -> None:
    """One image, which must have more than one color."""
    prompt = {"name": "prompt", "shape": [1, 1], "datatype": "BYTES", "data": ["a red circle on a blue background"]}
    [image] = json.loads(send(url, {"inputs": [prompt], "outputs": [{"name": "image"}]}, IMAGE_SECONDS))["outputs"]
    if len(set(image["data"])) < 2:
        sys.exit(f"{url} answered with an empty image of shape {image['shape']}")
    print(f"{url} generated an image of shape {image['shape']}")


wait(sys.argv[1])
print(f"{sys.argv[1]}: the operator is healthy")
if len(sys.argv) > 2:
    generate(sys.argv[2])
