"""The fetch stage: a checkpoint, or one component, from a hub, a folder or an archive, into the store.

Names are validated before anything is read, JSON before weights are downloaded, and headers of weights before any
library maps them into memory. Nothing of a checkpoint is ever run.
"""

from diffusion_builder.sources.fetch import OnFile, from_archive, from_folder, from_hub
from diffusion_builder.sources.validate import inspect_source, read_json

__all__ = ["OnFile", "from_archive", "from_folder", "from_hub", "inspect_source", "read_json"]
