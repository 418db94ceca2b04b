"""The claim that holds the store, when the pipeline brings its own."""

from diffusion_contract.spec import Storage
from diffusion_operator import naming
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.manifests.common import Owner, metadata

DEFAULT_ACCESS_MODES = ("ReadWriteMany",)


def claim(storage: Storage, owner: Owner) -> JsonObject:
    """The claim; it is deleted with the pipeline."""
    spec: JsonObject = {
        "accessModes": list(storage.access_modes or DEFAULT_ACCESS_MODES),
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(naming.claim(owner.name), owner, naming.common_labels(owner.name, naming.STORE)),
        "spec": spec,
    }
