"""A repository, read back from its files, that answers requests in this process."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime
from google.protobuf import text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.graphs import deviation
from diffusion_builder.graphs.onnx_files import MODEL
from diffusion_builder.parity import provenance, python_backend
from diffusion_builder.repository.graph import Ensemble, EnsembleStep, Port, TritonModel, ancestors, validate_ensemble
from diffusion_contract.enums import Precision
from diffusion_contract.python_models import IMAGE
from diffusion_contract.tensors import DECODED_IMAGE, LATENT, DType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy as np

    from diffusion_builder.store import Artifact, Store

    Run = Callable[[Mapping[str, NDArray[Any]], Sequence[str]], Mapping[str, NDArray[Any]]]

Array = NDArray[Any]
_CONFIG = "config.pbtxt"
_VERSION = "1"
_PYTHON = "python"
_ENSEMBLE = "ensemble"
_DTYPES = {dtype.config_name: dtype for dtype in DType}
# The library has no types.
_ModelConfig: Any = model_config_pb2.ModelConfig
_DataType: Any = model_config_pb2.DataType


@dataclass(frozen=True)
class GeneratedImages:
    """Images of an ensemble: uint8 [B, H, W, 3], and the latents [B, C, h, w] that these are decoded from."""

    images: NDArray[np.uint8]
    latents: NDArray[np.float32]


@dataclass(frozen=True)
class InProcessServer:
    """Ensembles by name, and a function for each model."""

    ensembles: Mapping[str, Ensemble]
    runs: Mapping[str, Run]

    def generate(self, name: str, inputs: Mapping[str, Array]) -> GeneratedImages:
        """Answer a request.

        Args:
            name: of an ensemble.
            inputs: tensors, each with the batch first.

        Raises:
            BadInputError: the ensemble has no such input, or a model rejects the request.
        """
        ensemble = self.ensembles[name]
        unknown = inputs.keys() - {port.name for port in ensemble.inputs}
        if unknown:
            raise BadInputError(Reason.PARITY_FAILED, f"{name} has no input {', '.join(sorted(unknown))}")
        latent = _latent(ensemble)
        outputs = execute(ensemble, inputs, (IMAGE.name, latent), lambda step: self.runs[step.model.name])
        return GeneratedImages(outputs[IMAGE.name], outputs[latent])


@contextmanager
def load_repository(store: Store, repository: Artifact) -> Iterator[InProcessServer]:
    """Read all files of a repository and load its models.

    Raises:
        BadInputError: a file cannot be read, or the graph that it describes is not correct.
    """
    root = repository.path / "models"
    configs = {
        path.parent.name: read_config(path.read_text(encoding="utf-8"), f"{path.parent.name}/{_CONFIG}")
        for path in sorted(root.glob(f"*/{_CONFIG}"))
    }
    plain = {name: config for name, config in configs.items() if config.platform != _ENSEMBLE}
    # An ensemble may be a step of another one.
    models = {name: TritonModel(name, _ports(config.input), _ports(config.output)) for name, config in configs.items()}
    ensembles = {name: _ensemble(name, configs[name], models) for name in configs.keys() - plain.keys()}
    for ensemble in ensembles.values():
        validate_ensemble(ensemble)
    with ExitStack() as stack:
        runs: dict[str, Run] = {
            name: stack.enter_context(python_backend.load_model(name, root / name / _VERSION))
            if config.backend == _PYTHON
            else stack.enter_context(_engine(store, root / name / _VERSION))
            for name, config in plain.items()
        }  # fmt: skip
        yield InProcessServer(ensembles, runs)


def read_config(text: str, name: str) -> Any:  # noqa: ANN401 - protobuf has no types
    """Read a `config.pbtxt` by Triton's own schema.

    Args:
        text: its content.
        name: of the file, for the message.

    Raises:
        BadInputError: it is not a model configuration in protobuf's text format.
    """
    try:
        return text_format.Parse(text, _ModelConfig())
    except text_format.ParseError as error:
        raise BadInputError(Reason.INVALID_ENSEMBLE, f"{name} is not a model configuration: {error}") from error


def _ports(tensors: Iterable[Any]) -> tuple[Port, ...]:
    return tuple(
        Port(
            tensor.name,
            _DTYPES[_DataType.Name(tensor.data_type)],
            tuple(tensor.dims),
            # Only inputs can be.
            optional=getattr(tensor, "optional", False),
        )
        for tensor in tensors
    )


def _ensemble(name: str, config: Any, models: Mapping[str, TritonModel]) -> Ensemble:  # noqa: ANN401 - protobuf has no types
    steps = tuple(
        EnsembleStep(models[step.model_name], dict(step.input_map), dict(step.output_map))
        for step in config.ensemble_scheduling.step
    )
    return Ensemble(name, _ports(config.input), _ports(config.output), steps)


def _graph_of(store: Store, folder: Path) -> Artifact:
    """The exported graph that the engine in a model's version folder was made from."""
    link = next(path for path in sorted(folder.iterdir()) if path.is_symlink())
    return provenance.source_graph(store, link.readlink().parts[-2])


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
            deviation.widen_to_float32(graph.path, Path(scratch))
            yield _session(Path(scratch))


def _session(folder: Path) -> Run:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / MODEL, options, providers=["CPUExecutionProvider"])
    names = {node.name for node in session.get_inputs()}

    def run(inputs: Mapping[str, Array], output_names: Sequence[str]) -> Mapping[str, Array]:
        feed = {name: array for name, array in inputs.items() if name in names}
        return dict(zip(output_names, session.run(list(output_names), feed), strict=True))

    return run


def execute(
    ensemble: Ensemble, inputs: Mapping[str, Array], output_names: Sequence[str], run: Callable[[EnsembleStep], Run]
) -> Mapping[str, Array]:
    """Run the steps that the requested tensors need, as Triton does.

    Args:
        ensemble: the graph.
        inputs: tensors of the request.
        output_names: outputs or inner tensors.
        run: function of a step's model.

    Raises:
        BadInputError: a required input was not sent, so that a step waits for ever.
    """
    values = dict(inputs)
    needed = ancestors(ensemble, output_names)
    waiting = [step for step in ensemble.steps if not needed.isdisjoint(step.outputs.values())]
    absent = {port.name for port in ensemble.inputs} - inputs.keys()
    while waiting:
        ready = [step for step in waiting if all(name in values or name in absent for name in step.inputs.values())]
        if not ready:
            raise BadInputError(Reason.INVALID_ENSEMBLE, f"{ensemble.name}: {len(waiting)} steps wait for each other")
        for step in ready:
            feed = {port: values[name] for port, name in step.inputs.items() if name in values}
            ports = {port: tensor for port, tensor in step.outputs.items() if tensor in needed}
            outputs = run(step)(feed, tuple(ports))
            values |= {tensor: outputs[port] for port, tensor in ports.items()}
        waiting = [step for step in waiting if step not in ready]
    return {name: values[name] for name in output_names}


def _latent(ensemble: Ensemble) -> str:
    """The tensor that the image is decoded from."""
    makers = {tensor: step for step in ensemble.steps for tensor in step.outputs.values()}
    return makers[makers[IMAGE.name].inputs[DECODED_IMAGE.name]].inputs[LATENT.name]
