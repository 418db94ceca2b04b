"""A Triton whose images tell its revision by their color, for the gateway of the images API and routes before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_contract import python_models
from diffusion_contract.limits import GRPC_PORT, HTTP_PORT

if TYPE_CHECKING:
    from tests.support.cluster.kube import Object

STEPS = 20
_FOLDER = "/repository"
_ENSEMBLE = python_models.ensemble_name("generate", (), str(STEPS))
_TABLE = python_models.table_of(f"generate_{STEPS}").name
_MODEL = """
import io, json
import numpy as np
import triton_python_backend_utils as pb_utils
from PIL import Image

class TritonPythonModel:
    def initialize(self, args):
        color = json.loads(args["model_config"])["parameters"]["color"]["string_value"]
        file = io.BytesIO()
        Image.new("RGB", (64, 64), color).save(file, "PNG")
        self.content = file.getvalue()

    def execute(self, requests):
        return [self.images(pb_utils.get_input_tensor_by_name(request, "seed").as_numpy()) for request in requests]

    def images(self, seeds):
        images = np.full(seeds.shape, self.content, np.object_)
        return pb_utils.InferenceResponse([pb_utils.Tensor("encoded_image", images)])
"""
_INPUTS = """
input [
  {name: "prompt" data_type: TYPE_STRING dims: [1]},
  {name: "seed" data_type: TYPE_INT64 dims: [1]},
  {name: "output_format" data_type: TYPE_STRING dims: [1] optional: true}
]
"""
_OUTPUT = 'output [{name: "%s" data_type: TYPE_STRING dims: [1]}]'


def colored_triton(name: str, image: str, color: str) -> list[Object]:
    """A Deployment with the model repository of one pipeline, and the Service of its revision.

    Args:
        name: of all objects.
        image: of the server.
        color: of its images, by the name that Pillow knows.
    """
    files = _files(color)
    labels, head = {"app": name}, {"name": name}
    items = [{"key": key, "path": path} for key, (path, _) in files.items()]
    pod = {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_container(image)],
        "volumes": [
            {"name": "models", "configMap": {"name": name, "items": items}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    deployment = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    ports = [{"name": "http", "port": HTTP_PORT}, {"name": "grpc", "port": GRPC_PORT}]
    data = {key: text for key, (_, text) in files.items()}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": head, "data": data},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": head, "spec": deployment},
        {"apiVersion": "v1", "kind": "Service", "metadata": head, "spec": {"selector": labels, "ports": ports}},
    ]


def _container(image: str) -> Object:
    return {
        "name": "triton",
        "image": image,
        # Beside the folder, a ConfigMap has folders of its own, which Triton would take for models.
        "command": ["tritonserver", f"--model-repository={_FOLDER}/models", "--disable-auto-complete-config"],
        "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108 - the pod's own emptyDir
        "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": HTTP_PORT}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "models", "mountPath": _FOLDER, "readOnly": True},
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - the server's shared memory, a volume of the pod
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - same
        ],
    }


def _files(color: str) -> dict[str, tuple[str, str]]:
    """Key in the ConfigMap → path in the repository, and text."""
    files = {}
    outputs = {_ENSEMBLE: python_models.ENCODED_IMAGE.name, python_models.CONDITIONER_NAME: _TABLE}
    for model, output in outputs.items():
        parameters = f'parameters {{key: "color" value: {{string_value: "{color}"}}}}'
        config = f'backend: "python" max_batch_size: 8 {_INPUTS} {_OUTPUT % output} {parameters}'
        files[f"{model}.pbtxt"] = (f"models/{model}/config.pbtxt", config)
        files[f"{model}.py"] = (f"models/{model}/1/model.py", _MODEL)
    return files
