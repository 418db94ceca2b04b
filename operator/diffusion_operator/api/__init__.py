"""The custom resource: its group, version and names."""

from diffusion_contract.documents import API_VERSION, GROUP, KIND, VERSION

__all__ = ["API_VERSION", "GROUP", "KIND", "PLURAL", "VERSION"]

PLURAL = "diffusionpipelines"
