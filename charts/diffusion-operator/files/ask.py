"""`helm test`: the operator works, and a pipeline, where one is named, draws a picture. Standard library only."""

import json
import sys
import time
import urllib.error
import urllib.request

DEADLINE_SECONDS = 60
PICTURE_SECONDS = 600


def ask(url: str, question: object, timeout: float) -> bytes:
    """The body of the answer; an error status ends the test with the server's words."""
    data = None if question is None else json.dumps(question).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=timeout) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        sys.exit(f"{url} answered {error.code}: {error.read().decode(errors='replace')[:500]}")


def wait(url: str) -> None:
    """Until somebody answers."""
    end = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            ask(url, None, 5)
            return
        except OSError as error:
            if time.monotonic() > end:
                sys.exit(f"{url} does not answer within {DEADLINE_SECONDS} s: {error}")
            time.sleep(1)


def draw(url: str) -> None:
    """One picture: it has to have more than one colour."""
    prompt = {"name": "prompt", "shape": [1, 1], "datatype": "BYTES", "data": ["a red circle on a blue background"]}
    question = {"inputs": [prompt], "outputs": [{"name": "image"}]}
    [image] = json.loads(ask(url, question, PICTURE_SECONDS))["outputs"]
    if len(set(image["data"])) < 2:
        sys.exit(f"{url} answered with an empty picture of shape {image['shape']}")
    print(f"{url} drew a picture of shape {image['shape']}")


wait(sys.argv[1])
print(f"{sys.argv[1]} says that the operator works")
if len(sys.argv) > 2:
    draw(sys.argv[2])
