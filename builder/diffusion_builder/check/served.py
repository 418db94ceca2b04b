"""A repository, read back from its files, that answers requests in this process."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime
from numpy.typing import NDArray

from diffusion_builder.check import config_text, ingredients, python_backend
from diffusion_builder.components.options import Precision
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.graphs import deviation
from diffusion_builder.graphs.onnx_files import MODEL
from diffusion_builder.repository.graph import Ensemble, Model, Port, Step, behind, check
from diffusion_contract.tensors import DType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np

    from diffusion_builder.check.config_text import Message
    from diffusion_builder.store import Artifact, Store

    Run = Callable[[Mapping[str, NDArray[Any]], Sequence[str]], Mapping[str, NDArray[Any]]]

Array = NDArray[Any]
_CONFIG = "config.pbtxt"
_VERSION = "1"
_PYTHON = "python"
_ENSEMBLE = "ensemble"
_DTYPES = {dtype.config_name: dtype for dtype in DType}
_IMAGE, _DECODED, _LATENT = "image", "decoded", "latent"


@dataclass(frozen=True)
class Drawn:
    """What an ensemble answers: uint8 [B, H, W, 3], and the latents [B, C, h, w] that these are decoded from."""

    pictures: NDArray[np.uint8]
    latents: NDArray[np.float32]


@dataclass(frozen=True)
class Served:
    """Ensembles by name, and a function for each model."""

    ensembles: Mapping[str, Ensemble]
    runs: Mapping[str, Run]

    def draw(self, name: str, inputs: Mapping[str, Array]) -> Drawn:
        """Answer a request.

        Args:
            name: of an ensemble.
            inputs: tensors, each with the batch first.

        Raises:
            BadInputError: the ensemble has no such input, or a model refuses.
        """
        ensemble = self.ensembles[name]
        unknown = inputs.keys() - {port.name for port in ensemble.inputs}
        if unknown:
            raise BadInputError(Reason.CHECK_FAILED, f"{name} has no input {', '.join(sorted(unknown))}")
        latent = _latent(ensemble)
        found = execute(ensemble, inputs, (_IMAGE, latent), lambda step: self.runs[step.model.name])
        return Drawn(found[_IMAGE], found[latent])


@contextmanager
def opened(store: Store, repository: Artifact) -> Iterator[Served]:
    """Read all files of a repository and load its models.

    Raises:
        BadInputError: a file cannot be read, or the graph that it describes is not correct.
    """
    root = repository.path / "models"
    configs = {
        path.parent.name: config_text.parse(path.read_text(encoding="utf-8"), f"{path.parent.name}/{_CONFIG}")
        for path in sorted(root.glob(f"*/{_CONFIG}"))
    }
    plain = {name: config for name, config in configs.items() if config.text("platform") != _ENSEMBLE}
    models = {name: Model(name, _ports(config, "input"), _ports(config, "output")) for name, config in plain.items()}
    ensembles = {name: _ensemble(name, configs[name], models) for name in configs.keys() - plain.keys()}
    for ensemble in ensembles.values():
        check(ensemble)
    with ExitStack() as stack:
        runs: dict[str, Run] = {
            name: stack.enter_context(python_backend.model(name, root / name / _VERSION))
            if config.text("backend") == _PYTHON
            else stack.enter_context(_engine(store, root / name / _VERSION))
            for name, config in plain.items()
        }  # fmt: skip
        yield Served(ensembles, runs)


def _ports(config: Message, kind: str) -> tuple[Port, ...]:
    return tuple(
        Port(
            item.text("name"), _DTYPES[item.text("data_type")], tuple(int(dim) for dim in item.texts("dims")),
            optional=item.text("optional") == "true",
        )
        for item in config.messages(kind)
    )  # fmt: skip


def _ensemble(name: str, config: Message, models: Mapping[str, Model]) -> Ensemble:
    steps = tuple(
        Step(models[item.text("model_name")], _map(item, "input_map"), _map(item, "output_map"))
        for scheduling in config.messages("ensemble_scheduling")
        for item in scheduling.messages("step")
    )
    return Ensemble(name, _ports(config, "input"), _ports(config, "output"), steps)


def _map(step: Message, name: str) -> dict[str, str]:
    return {item.text("key"): item.text("value") for item in step.messages(name)}


def _graph_of(store: Store, folder: Path) -> Artifact:
    """The exported graph that the engine in a model's version folder was made from."""
    link = next(path for path in sorted(folder.iterdir()) if path.is_symlink())
    return ingredients.graph_of(store, link.readlink().parts[-2])


@contextmanager
def _engine(store: Store, folder: Path) -> Iterator[Run]:
    """The graph that an engine was made from, in ONNX Runtime.

    Its kernels for the CPU know no bfloat16: such a graph is widened to float32, with weights that are rounded already.
    """
    graph = _graph_of(store, folder)
    with tempfile.TemporaryDirectory() as scratch:
        if graph.manifest.extra["precision"] != Precision.BFLOAT16:
            yield _session(graph.path)
        else:
            deviation.twin(graph.path, Path(scratch))
            yield _session(Path(scratch))


def _session(folder: Path) -> Run:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / MODEL, options, providers=["CPUExecutionProvider"])
    known = {node.name for node in session.get_inputs()}

    def run(inputs: Mapping[str, Array], wanted: Sequence[str]) -> Mapping[str, Array]:
        fed = {name: array for name, array in inputs.items() if name in known}
        return dict(zip(wanted, session.run(list(wanted), fed), strict=True))

    return run


def execute(
    ensemble: Ensemble, inputs: Mapping[str, Array], wanted: Sequence[str], run: Callable[[Step], Run]
) -> Mapping[str, Array]:
    """Run the steps that the wanted tensors need, as Triton does.

    Args:
        ensemble: the graph.
        inputs: tensors of the request.
        wanted: outputs or inner tensors.
        run: tells what runs a step's model.

    Raises:
        BadInputError: a required input was not sent, so that a step waits for ever.
    """
    known = dict(inputs)
    needed = behind(ensemble, wanted)
    waiting = [step for step in ensemble.steps if not needed.isdisjoint(step.outputs.values())]
    absent = {port.name for port in ensemble.inputs} - inputs.keys()
    while waiting:
        ready = [step for step in waiting if all(name in known or name in absent for name in step.inputs.values())]
        if not ready:
            raise BadInputError(Reason.INVALID_ENSEMBLE, f"{ensemble.name}: {len(waiting)} steps wait for each other")
        for step in ready:
            fed = {port: known[name] for port, name in step.inputs.items() if name in known}
            produced = run(step)(fed, tuple(step.outputs))
            known |= {tensor: produced[port] for port, tensor in step.outputs.items()}
        waiting = [step for step in waiting if step not in ready]
    return {name: known[name] for name in wanted}


def _latent(ensemble: Ensemble) -> str:
    """The tensor that the picture is decoded from."""
    makers = {tensor: step for step in ensemble.steps for tensor in step.outputs.values()}
    return makers[makers[_IMAGE].inputs[_DECODED]].inputs[_LATENT]
