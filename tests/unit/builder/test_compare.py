"""Golden images tell a bad canary from a different one, against servers that answer as Triton does."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from diffusion_builder.cli.main import main
from diffusion_builder.compare.metrics import color_shift, is_constant, measure
from diffusion_builder.store import Kind, Store
from diffusion_builder.store.garbage_collection import RETAINED_COMPARISONS, GarbageCollectionOptions, collect
from diffusion_builder.store.manifest import Recipe
from tests.support import loopback

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

ENSEMBLE = "generate_4_pipeline"
NOT_FINITE = "in ensemble, the model produced numbers that are not finite: try another seed or lower guidance_scale"


def image(shift: int = 0, side: int = 64) -> NDArray[np.uint8]:
    """A bright circle on a dark ramp."""
    y, x = np.mgrid[:side, :side]
    base = np.stack([x // 2, y // 3, (x + y) // 4], axis=-1)
    base[(x - side / 2) ** 2 + (y - side / 2) ** 2 < (side / 4) ** 2] = (180, 40, 40)
    bright: NDArray[np.uint8] = np.clip(base + shift, 0, 255).astype(np.uint8)
    return bright


def noise() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(40, 120, (64, 64, 3)).astype(np.uint8)


@dataclass
class Fake:
    """A server's answer, and the requests that it received."""

    answer: NDArray[np.uint8] | str
    ensembles: tuple[str, ...] = (ENSEMBLE,)
    requests: list[Mapping[str, Any]] | None = None
    busy: int = 0


@contextmanager
def serving(fake: Fake) -> Iterator[str]:
    fake.requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(200 if self.path.split("/")[3] in fake.ensembles else 400, b"{}")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert fake.requests is not None
            fake.requests.append({"ensemble": self.path.split("/")[3], **body})
            if fake.busy > 0:
                fake.busy -= 1
                self._reply(503, b'{"error": "busy"}')
            elif isinstance(fake.answer, str):
                self._reply(500, json.dumps({"error": fake.answer}).encode())
            else:
                shape = [1, *fake.answer.shape]
                head = json.dumps({"outputs": [{"name": "image", "datatype": "UINT8", "shape": shape}]}).encode()
                self._reply(200, head + fake.answer.tobytes(), len(head))

        def _reply(self, code: int, body: bytes, header: int | None = None) -> None:
            self.send_response(code)
            if header is not None:
                self.send_header("Inference-Header-Content-Length", str(header))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with loopback.serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as url:
        yield url


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion_builder.serving.triton_client.PAUSE_SECONDS", 0.0)


def run(store: Path, first: Fake, second: Fake, *options: str, **spec: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """The stage's result, by its own command line."""
    body = {"stable": "aaaa", "canary": "bbbb", "ensembles": [ENSEMBLE], **spec}
    file = store.parent / "result.json"
    with serving(first) as stable, serving(second) as canary:
        arguments = ["compare", "--store", str(store), "--stable", stable, "--canary", canary]
        main(["--progress", "plain", *arguments, "--spec", json.dumps(body), "--result", str(file), *options])
    assert file.stat().st_size <= 4096
    result: dict[str, Any] = json.loads(file.read_text())
    return result


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (image(), "Passed"),
        (image(10), "Passed"),
        (image()[:, ::-1], "Passed"),
        (image(100), "ColorShift"),
        (image()[..., ::-1], "Passed"),
        (noise(), "Noise"),
        (np.zeros((64, 64, 3), np.uint8), "Constant"),
        (np.full((64, 64, 3), 127, np.uint8), "Constant"),
        (NOT_FINITE, "NotFinite"),
        ("CUDA error: out of memory", "NoImage"),
    ],
    ids=["same", "brighter", "mirrored", "much-brighter", "blue-for-red", "noise", "black", "grey", "nan", "error"],
)
def test_a_bad_canary_is_a_result(store: Path, answer: NDArray[np.uint8] | str, reason: str) -> None:
    report = run(store, Fake(image()), Fake(answer))
    assert (report["passed"], report["reason"]) == (reason == "Passed", reason)
    folder = store / report["comparison"]
    assert (folder / "sheet.png").exists()
    assert len(list((folder / "stable").glob("*.png"))) == 6
    assert len(list((folder / "canary").glob("*.png"))) == (0 if isinstance(answer, str) else 6)


def test_the_message_says_the_numbers(store: Path) -> None:
    report = run(store, Fake(image()), Fake(image(100)))
    assert "Median over 6 pairs: colors shifted by 0.39" in report["message"]
    assert "0.25 is allowed" in report["message"]


@pytest.mark.parametrize(("limit", "reason"), [({"minPSNR": 40}, "PSNR"), ({"minSSIM": 0.999}, "SSIM")])
def test_a_change_that_should_be_neutral_can_be_held_to_it(store: Path, limit: dict[str, float], reason: str) -> None:
    assert run(store, Fake(image()), Fake(image(12)), **limit)["reason"] == reason
    assert run(store, Fake(image()), Fake(image()), canary="cccc", **limit)["passed"] is True


def test_both_are_asked_the_same(store: Path) -> None:
    stable, canary = Fake(image()), Fake(image())
    run(store, stable, canary, prompts=[{"prompt": "a star", "seed": 7}], height=64, width=64)
    assert stable.requests == canary.requests
    assert stable.requests is not None
    [request] = stable.requests
    values = {tensor["name"]: tensor["data"] for tensor in request["inputs"]}
    assert values == {"prompt": ["a star"], "seed": [7], "height": [64], "width": [64]}


def test_steps_choose_the_ensemble_and_what_stable_lacks_is_judged_alone(store: Path) -> None:
    stable = Fake(image())
    canary = Fake(image(), ensembles=(ENSEMBLE, "generate_20_pipeline"))
    prompts = [{"prompt": "a", "steps": 20}, {"prompt": "b"}]
    report = run(store, stable, canary, ensembles=["generate_20_pipeline", ENSEMBLE], prompts=prompts)
    assert report["passed"] is True
    assert [item["ensemble"] for item in canary.requests or ()] == ["generate_20_pipeline", ENSEMBLE]
    assert [item["ensemble"] for item in stable.requests or ()] == [ENSEMBLE]


@pytest.mark.parametrize("task", ["img2img", "inpaint"])
def test_other_tasks_are_sent_an_image(store: Path, task: str) -> None:
    name = f"{task}_4_pipeline"
    canary = Fake(image(), ensembles=(name,))
    run(store, Fake(image(), ensembles=(name,)), canary, ensembles=[name])
    tensors = {tensor["name"] for tensor in (canary.requests or [])[0]["inputs"]}
    assert tensors == {"prompt", "seed", "input_image"} | ({"mask"} if task == "inpaint" else set())


def test_revisions_that_were_judged_are_not_asked_again(store: Path) -> None:
    first = run(store, Fake(image()), Fake(image(100)))
    again = Fake(image())
    second = run(store, Fake(image()), again)
    assert again.requests == []
    assert second == {**first, "cached": True, "seconds": second["seconds"]}


def test_a_server_that_is_busy_for_a_moment_is_not_bad(store: Path) -> None:
    assert run(store, Fake(image()), Fake(image(), busy=2))["passed"] is True


def test_a_server_that_is_gone_is_no_verdict(store: Path) -> None:
    spec = json.dumps({"stable": "a", "canary": "b", "ensembles": [ENSEMBLE]})
    arguments = ["compare", "--store", str(store), "--canary", "http://127.0.0.1:1", "--spec", spec]
    with serving(Fake(image())) as url, pytest.raises(SystemExit) as ended:
        main([*arguments, "--stable", url])
    assert ended.value.code == 69
    assert not list(store.glob("comparisons/[0-9a-f]*"))


@pytest.mark.parametrize(
    "spec",
    [{"ensembles": []}, {"prompts": []}, {"ensembles": ["../x"]}, {"maxColorShift": 2}, {"stable": "A B"}, {"x": 1}],
)
def test_a_wrong_spec_is_bad_input(store: Path, spec: dict[str, Any]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(store, Fake(image()), Fake(image()), **spec)
    assert ended.value.code == 64


def test_a_canary_without_the_ensembles_is_bad_input(store: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        run(store, Fake(image()), Fake(image(), ensembles=()))
    assert ended.value.code == 64


@pytest.mark.parametrize(
    ("score", "passed", "reason"),
    [
        ({"passed": True, "message": "lovely"}, True, "Passed"),
        ({"passed": False, "message": "blurred"}, False, "Scorer"),
        ({"passed": False}, False, "Scorer"),
    ],
)
def test_a_scorer_has_the_last_word_and_finds_the_images(
    store: Path, tmp_path: Path, score: dict[str, Any], *, passed: bool, reason: str
) -> None:
    shared = tmp_path / "images"
    run(store, Fake(image()), Fake(image()), "--export", str(shared))
    prompts = json.loads((shared / "prompts.json").read_text())
    assert len(prompts) == len(list((shared / "canary").glob("*.png"))) == len(list((shared / "stable").glob("*.png")))
    (shared / "score.json").write_text(json.dumps(score))
    report = run(store, Fake(image()), Fake(image()), "--score", str(shared / "score.json"))
    assert (report["passed"], report["reason"]) == (passed, reason)
    assert score.get("message", "failed") in report["message"]


def test_a_scorer_cannot_save_a_canary_without_images(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "score.json"
    file.write_text('{"passed": true}')
    assert run(store, Fake(image()), Fake(NOT_FINITE), "--score", str(file))["reason"] == "NotFinite"


@pytest.mark.parametrize("text", [None, "", "[]", '{"passed": "yes"}', "{}"])
def test_a_scorer_that_says_nothing_is_an_error(store: Path, tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "score.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SystemExit) as ended:
        run(store, Fake(image()), Fake(image()), "--score", str(file))
    assert ended.value.code == 64


def test_the_sheet_shows_both_sides(store: Path) -> None:
    report = run(store, Fake(image()), Fake(NOT_FINITE))
    with Image.open(store / report["comparison"] / "sheet.png") as sheet:
        stable_side, canary_side = (np.asarray(sheet.crop((x, 60, x + 200, 240))) for x in (40, 310))
    assert stable_side.std() > 10 > canary_side.std()


def test_colours_do_not_care_where_they_are() -> None:
    mirrored = image()[::-1, ::-1]
    assert color_shift(image(), mirrored) == 0
    assert color_shift(np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)) == 1
    figures = measure(image(), mirrored)
    assert figures.psnr < 30
    assert figures.ssim < 0.99
    assert figures.roughness == pytest.approx(1)


def test_equal_images_and_other_sizes_have_finite_figures() -> None:
    assert measure(image(), image()).psnr == 99.0
    assert measure(image(side=128), image()).color_shift < 0.1
    assert not is_constant(image())


def test_collection_keeps_the_last_images(tmp_path: Path) -> None:
    now = [1000.0]
    store = Store(tmp_path, clock=lambda: now[0])
    names = []
    for number in range(RETAINED_COMPARISONS + 3):
        now[0] += 10
        artifact, _ = store.publish(Recipe(Kind.COMPARISON, {"number": number}), lambda _folder: {})
        names.append(artifact.manifest.digest)
    now[0] += 10_000
    collected = collect(store, GarbageCollectionOptions(keep=(names[0],), grace=60.0))
    assert {entry.digest for entry in collected.deleted} == set(names[1:3])
