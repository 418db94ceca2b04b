"""What both trainings share: sizes in turn, one recorded CUDA graph per size, a learning rate that ends at zero."""

import math
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import Parameter

Step = Callable[[], Tensor]
REPORT_EVERY = 100
WARM_UP = 500


@dataclass(frozen=True)
class Size:
    """Images of one size: pixels, how many at once, and the share of steps they get."""

    height: int
    width: int
    batch: int
    share: float


@dataclass
class History:
    """Mean loss of every `REPORT_EVERY` steps, the seconds that all steps took, and the device they ran on."""

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    device: str = "CPU"


class Optimizer:
    """AdamW with clipped gradients and a learning rate that lives on the device, so that a graph can be replayed."""

    def __init__(self, parameters: Iterable[Parameter], peak: float, steps: int) -> None:
        self._parameters = list(parameters)
        device = self._parameters[0].device
        self._rate = torch.tensor(0.0, device=device)
        self._peak, self._steps = peak, steps
        self._adam = torch.optim.AdamW(
            self._parameters,
            lr=self._rate,
            betas=(0.9, 0.99),
            weight_decay=0.01,
            fused=True,
            capturable=device.type == "cuda",
        )

    def set_rate(self, step: int) -> None:
        """Linear warm-up, then a cosine down to zero."""
        warm = min(1.0, (step + 1) / WARM_UP)
        self._rate.fill_(self._peak * warm * (1 + math.cos(math.pi * step / self._steps)) / 2)

    def descend(self, loss: Tensor) -> Tensor:
        """One update from a scalar loss; returns the loss without its history."""
        self._adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._adam.step()
        return loss.detach()


def recorded(step: Step, device: torch.device) -> Step:
    """The step as a CUDA graph, which costs one launch instead of thousands; elsewhere the step as it is.

    The three warm-up runs that recording needs are real updates.
    """
    if device.type != "cuda":
        return step
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()
    return _Recording(step, graph, loss)


@dataclass(frozen=True)
class _Recording:
    """A recorded step. It keeps the step itself, hence every tensor whose address the graph has written down."""

    step: Step
    graph: torch.cuda.CUDAGraph
    loss: Tensor

    def __call__(self) -> Tensor:
        self.graph.replay()
        return self.loss


def train(name: str, steps: dict[Size, Step], count: int, before: Callable[[int], None]) -> History:
    """Run `count` steps, sizes in a fixed random order by their shares.

    Args:
        name: printed before the numbers.
        steps: for each size what does one update and returns its loss, a scalar.
        count: how many updates.
        before: called with the number of each update before it.
    """
    history, start = History(), time.monotonic()
    if torch.cuda.is_available():
        history.device = torch.cuda.get_device_name()
    sizes = list(steps)
    order = random.Random(count).choices(sizes, [size.share for size in sizes], k=count)  # noqa: S311 - not a secret
    total: Tensor | float = 0.0
    for number, size in enumerate(order):
        before(number)
        total = total + steps[size]()
        if (number + 1) % REPORT_EVERY == 0 or number + 1 == count:
            steps_since_report = number % REPORT_EVERY + 1
            history.steps.append(number + 1)
            history.losses.append(float(total) / steps_since_report)
            total = 0.0
            if len(history.steps) % 20 == 1 or number + 1 == count:
                rate = (number + 1) / (time.monotonic() - start)
                print(f"{name}: step {number + 1}/{count}, loss {history.losses[-1]:.5f}, {rate:.1f}/s", flush=True)
    history.seconds = time.monotonic() - start
    return history
