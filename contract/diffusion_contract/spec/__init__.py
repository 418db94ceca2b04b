"""The models of a DiffusionPipeline's `spec`; a module for each part of it."""

from diffusion_contract.enums import Precision
from diffusion_contract.spec.acceleration import Acceleration
from diffusion_contract.spec.affinity import Affinity
from diffusion_contract.spec.engines import Engines, Shapes
from diffusion_contract.spec.experiment import Experiment, Variant, apply_variant
from diffusion_contract.spec.images_api import ImagesApi
from diffusion_contract.spec.jobs import Jobs
from diffusion_contract.spec.model import ClaimSource, HuggingFaceSource, Model, SecretKey, Source
from diffusion_contract.spec.pipeline import DiffusionPipelineSpec
from diffusion_contract.spec.pod_template import PodTemplate
from diffusion_contract.spec.rollout import Rollout
from diffusion_contract.spec.sampling import Pipeline, Scheduler
from diffusion_contract.spec.serving import Batching, EnvVar, Serving
from diffusion_contract.spec.storage import Storage
from diffusion_contract.spec.targets import Gpu, Target

__all__ = [
    "Acceleration",
    "Affinity",
    "Batching",
    "ClaimSource",
    "DiffusionPipelineSpec",
    "Engines",
    "EnvVar",
    "Experiment",
    "Gpu",
    "HuggingFaceSource",
    "ImagesApi",
    "Jobs",
    "Model",
    "Pipeline",
    "PodTemplate",
    "Precision",
    "Rollout",
    "Scheduler",
    "SecretKey",
    "Serving",
    "Shapes",
    "Source",
    "Storage",
    "Target",
    "Variant",
    "apply_variant",
]
