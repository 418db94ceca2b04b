"""The API `diffusion-operator.io/v1alpha1`: spec, status and the CRD made from them."""

GROUP = "diffusion-operator.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "DiffusionPipeline"
PLURAL = "diffusionpipelines"
