"""What the unrolled ensemble is worth against three other ways to run the same engines on the same server.

Builds the demo checkpoint and adds two models to a copy of its repository. In one run, in turns:

* `ensemble`: the unrolled ensemble;
* `bls`: a Python model that calls the denoiser and the scheduler step by Triton's BLS, in 16 instances;
* `python`: a Python model with both engines inside itself, in one instance, so one request after the other;
* `per_request_loop`: a client that makes each call of the loop over HTTP. Its calls pass the same dynamic batcher.

`overhead_ms_per_step` is of one client: the time of a request less what its models took to compute, by Triton's own
statistics (`compute_infer`, which with a Python shim around an engine holds the way to the shim and back; `python`
measures the sessions of its loop itself). What remains of requests of 4 steps is taken from what remains of requests of
20, so that only steps count: wall time per step less `compute_infer` of denoiser and scheduler step. Medians.

`images_per_second` is of clients that send one request after the other: requests answered, by the time until the last
one is. `mean_batch` is the denoiser's in the ensemble's measurements, where a batch holds at most 8. Medians of rounds.
Writes out/bench-ensemble.json.

    python -m benchmarks.ensemble --seconds 5

With `--device cuda` denoiser and VAE run in half precision on a GPU: torch's modules as CUDA graphs, behind the same
thin Python models. A repository can be measured on another machine than the one that has built it:

    python -m benchmarks.ensemble --device cuda --prepare FOLDER
    python -m benchmarks.ensemble --device cuda --models FOLDER
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import numpy as np
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import np_to_triton_dtype

from benchmarks.ensemble_models.loop import Tensors, draw
from tests.support.triton.client import counts, psnr, tensor
from tests.support.triton.tritonserver import serve

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHORT, LONG = 4, 20
CLIENTS = (1, 4, 16)
BATCH_CLIENTS = (1, 2, 4, 8, 16)
ROUNDS = 3
# What the demo checkpoint is built for.
MAX_BATCH = 8
LEAST_PSNR = 40.0
_BEGIN = time.monotonic()
OUT = Path(__file__).parents[1] / "out" / "bench-ensemble.json"
# A client, steps and seed; gives the image as a file, and the seconds of engines that Triton does not count.
Contender = Callable[[Any, int, int], tuple[bytes, float]]
Table = dict[str, dict[str, float]]


def request(seed: int) -> dict[str, Any]:
    """One image of 64 x 64 pixels."""
    prompt = np.array([[b"a red circle on a blue background"]], object)
    return {"prompt": prompt, "seed": np.array([[seed]]), "guidance_scale": np.array([[2.0]], np.float32)}


def call(client: Any, model: str, inputs: Tensors, output_names: Sequence[str]) -> Tensors:  # noqa: ANN401 - no types
    """Run a model over HTTP with binary tensors."""
    tensors = [tensor(name, np_to_triton_dtype(array.dtype), array) for name, array in inputs.items()]
    result = client.infer(model, tensors, outputs=[triton.InferRequestedOutput(name) for name in output_names])
    return {name: result.as_numpy(name) for name in output_names}


def ensemble(client: Any, steps: int, seed: int) -> tuple[bytes, float]:  # noqa: ANN401 - no types
    """Send one request to the unrolled ensemble."""
    answer = call(client, f"generate_{steps}_pipeline", request(seed), ["encoded_image"])
    return answer["encoded_image"][0, 0], 0.0


def per_request_loop(client: Any, steps: int, seed: int) -> tuple[bytes, float]:  # noqa: ANN401 - no types
    """Make each call from here."""
    image = draw(lambda model, inputs, output_names: call(client, model, inputs, output_names), request(seed), steps)
    return image[0, 0], 0.0


def loop_model(name: str) -> Contender:
    """Send one request to a model that runs the loop."""

    def send_request(client: Any, steps: int, seed: int) -> tuple[bytes, float]:  # noqa: ANN401 - no types
        inputs = {**request(seed), "steps": np.array([[steps]], np.int32)}
        answer = call(client, name, inputs, ["encoded_image", "engine_seconds"])
        return answer["encoded_image"][0, 0], float(answer["engine_seconds"][0, 0])

    return send_request


CONTENDERS: dict[str, Contender] = {
    "ensemble": ensemble,
    "bls": loop_model("bls"),
    "python": loop_model("python"),
    "per_request_loop": per_request_loop,
}


@contextmanager
def server(models: Path | None, device: str, rate_limit: str) -> Iterator[str]:
    """A server with all contenders; its HTTP address."""
    with tempfile.TemporaryDirectory() as folder:
        if models is None:
            models = Path(folder, "models")
            prepare(models, device)
        with serve(models.resolve(), rate_limit=rate_limit) as running:
            print_progress("the server is ready")
            yield running.http


def prepare(models: Path, device: str) -> None:
    """Write the repository; what it takes to build one is not needed where one is only measured."""
    from benchmarks import ensemble_repository  # noqa: PLC0415 - it needs torch

    ensemble_repository.prepare(models, device)


@contextmanager
def connection(http: str) -> Iterator[Any]:
    """One client with a connection of its own."""
    with closing(triton.InferenceServerClient(http.removeprefix("http://"), network_timeout=300.0)) as client:
        yield client


def require_equal_images(http: str) -> None:
    """Warm up all sizes of a batch, and see to it that all contenders do the same work.

    On a GPU two sessions may choose different kernels, so images are compared, not files.

    Raises:
        SystemExit: they draw different images.
    """
    with connection(http) as client:
        for batch in range(MAX_BATCH, 0, -1):
            inputs = {name: array.repeat(batch, 0) for name, array in request(1).items()}
            call(client, f"generate_{SHORT}_pipeline", inputs, ["encoded_image"])
            print_progress(f"warm: batch {batch}")
        for steps in (SHORT, LONG):
            images = {name: pixels(contender(client, steps, 1)[0]) for name, contender in CONTENDERS.items()}
            print_progress(f"warm: {steps} steps")
            reference = images["ensemble"]
            different = [name for name, image in images.items() if psnr(image, reference) < LEAST_PSNR]
            if different:
                sys.exit(f"{', '.join(different)}: not the ensemble's image at {steps} steps")


def print_progress(message: str) -> None:
    """Report progress."""
    print(f"{time.monotonic() - _BEGIN:6.1f} s  {message}", file=sys.stderr, flush=True)


def pixels(file: bytes) -> NDArray[np.uint8]:
    """Decode an image."""
    return np.asarray(Image.open(io.BytesIO(file)))


def engine_seconds(http: str) -> float:
    """What the models that the loop calls have taken since the server's start, without the last one.

    The last one is left out because Triton counts it while its answer is already on the way.
    """
    with urlopen(f"{http}/v2/models/stats", timeout=60) as response:  # noqa: S310 - our own server
        stats = json.load(response)["model_stats"]
    counted = [each for each in stats if each["name"][0].isdigit() and each["name"] != "8_postprocessor"]
    return sum(int(each["inference_stats"]["compute_infer"]["ns"]) for each in counted) / 1e9


@dataclass
class SingleClient:
    """Seconds of a single client's requests by number of steps: all of a request, and what its engines took."""

    whole: dict[int, list[float]]
    engines: dict[int, list[float]]

    def send_requests(self, http: str, contender: Contender, seconds: float) -> None:
        """Send short and long requests in turn."""
        deadline = time.monotonic() + seconds
        with connection(http) as client:
            while time.monotonic() < deadline:
                for steps in (SHORT, LONG):
                    self._once(http, client, contender, steps)

    def _once(self, http: str, client: Any, contender: Contender, steps: int) -> None:  # noqa: ANN401 - no types
        before, begin = engine_seconds(http), time.perf_counter()
        _, own = contender(client, steps, 1)
        self.whole[steps].append(time.perf_counter() - begin)
        self.engines[steps].append(engine_seconds(http) - before + own)

    def metrics(self) -> tuple[float, float]:
        """Milliseconds per step outside and inside the engines."""
        overhead = {
            steps: [whole - engines for whole, engines in zip(self.whole[steps], self.engines[steps], strict=True)]
            for steps in (SHORT, LONG)
        }
        return _slope(overhead), _slope(self.engines)


def _slope(seconds: dict[int, list[float]]) -> float:
    return 1000 * (median(seconds[LONG]) - median(seconds[SHORT])) / (LONG - SHORT)


def overheads(http: str, seconds: float) -> tuple[Table, int]:
    """Measure a single client of each contender in turns; metrics, and the smallest number of requests behind them."""
    clients_by_contender = {name: SingleClient({SHORT: [], LONG: []}, {SHORT: [], LONG: []}) for name in CONTENDERS}
    for _ in range(ROUNDS):
        for name, contender in CONTENDERS.items():
            clients_by_contender[name].send_requests(http, contender, seconds)
            outside, inside = clients_by_contender[name].metrics()
            print_progress(f"alone: {name}: {outside:.2f} ms per step beside {inside:.2f} ms of engines")
    metrics = {name: each.metrics() for name, each in clients_by_contender.items()}
    return {
        "overhead_ms_per_step": {name: outside for name, (outside, _) in metrics.items()},
        "engine_ms_per_step": {name: inside for name, (_, inside) in metrics.items()},
    }, min(len(each.whole[LONG]) for each in clients_by_contender.values())


def load(http: str, contender: Contender, clients: int, seconds: float) -> tuple[float, float]:
    """Images per second of clients that send one request after the other, and the denoiser's mean batch."""
    before, begin = counts(http, "5_denoiser"), time.monotonic()

    def work(number: int) -> int:
        with connection(http) as client:
            seed = number
            while seed == number or time.monotonic() < begin + seconds:
                contender(client, LONG, seed)
                seed += clients
        return (seed - number) // clients

    with ThreadPoolExecutor(clients) as pool:
        answered = sum(pool.map(work, range(clients)))
    rate = answered / (time.monotonic() - begin)
    # The loop in one Python model has a denoiser of its own, which Triton does not see: no calls, so batches of 1.
    return rate, counts(http, "5_denoiser").since(before).mean_batch


def loads(http: str, seconds: float) -> dict[str, Table]:
    """Measure all numbers of clients in rounds; medians."""
    rows: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for _ in range(ROUNDS):
        for name, contender in CONTENDERS.items():
            for clients in BATCH_CLIENTS if name == "ensemble" else CLIENTS:
                rate, batch = load(http, contender, clients, seconds)
                rows.setdefault((name, clients), []).append((rate, batch))
                print_progress(f"{clients} clients: {name}: {rate:.2f} images/s, mean batch {batch:.1f}")
    rates: Table = {name: {} for name in CONTENDERS}
    batches: Table = {name: {} for name in CONTENDERS}
    for (name, clients), measured in rows.items():
        rates[name][str(clients)] = median(rate for rate, _ in measured)
        batches[name][str(clients)] = median(batch for _, batch in measured)
    return {"images_per_second": rates, "mean_batch_of": batches}


def targets(result: dict[str, Any]) -> dict[str, float]:
    """What the project wants: at most 0.35 of BLS's overhead, at least 4 times a loop's images with 16 clients."""
    overhead, rates = result["overhead_ms_per_step"], result["images_per_second"]
    most = str(max(CLIENTS))
    return {
        "overhead_against_bls": overhead["ensemble"] / overhead["bls"],
        "speed_against_per_request_loop": rates["ensemble"][most] / rates["per_request_loop"][most],
        "speed_against_python": rates["ensemble"][most] / rates["python"][most],
    }


def show(result: dict[str, Any]) -> None:
    """Print a table."""
    print(f"{'':18}{'overhead':>10}{'engines':>10}   images/s (mean batch) with clients:")
    print(f"{'':18}{'ms/step':>10}{'ms/step':>10}" + "".join(f"{clients:>14}" for clients in BATCH_CLIENTS))
    for name in CONTENDERS:
        metrics = [result[kind][name] for kind in ("overhead_ms_per_step", "engine_ms_per_step")]
        rates, batches = result["images_per_second"][name], result["mean_batch_of"][name]
        cells = [
            f"{rates[each]:.2f} ({batches[each]:.1f})" if each in rates else "" for each in map(str, BATCH_CLIENTS)
        ]
        print(f"{name:18}" + "".join(f"{each:>10.2f}" for each in metrics) + "".join(f"{cell:>14}" for cell in cells))
    print("\n".join(f"{name}: {value:.2f}" for name, value in result["targets"].items()))


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description="The unrolled ensemble against loops")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement in each of the rounds")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="what UNet and VAE run on")
    parser.add_argument("--rate-limit", choices=("execution_count", "off"), default="execution_count")
    parser.add_argument("--prepare", type=Path, metavar="FOLDER", help="only build the models, into this folder")
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="measure what --prepare has built")
    parser.add_argument("--out", type=Path, default=OUT, help="file with the metrics")
    return parser.parse_args()


def measure(http: str, seconds: float) -> dict[str, Any]:
    """All metrics."""
    require_equal_images(http)
    single_client_metrics, requests = overheads(http, seconds)
    result: dict[str, Any] = {
        "steps": LONG,
        "rounds": ROUNDS,
        "seconds": seconds,
        **single_client_metrics,
        **loads(http, seconds),
    }
    result["lone_requests_at_least"] = requests
    result["mean_batch"] = result["mean_batch_of"]["ensemble"]
    result["targets"] = targets(result)
    return result


def main() -> None:
    """Measure and write the file."""
    options = arguments()
    if options.prepare is not None:
        prepare(options.prepare, options.device)
        return
    with server(options.models, options.device, options.rate_limit) as http:
        result = {"device": options.device, "rate_limit": options.rate_limit, **measure(http, options.seconds)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    show(result)


if __name__ == "__main__":
    main()
