"""The contract's Python models. In a Triton model repository the contract's own file is in this one's place."""

from diffusion_contract.python_models import *  # noqa: F403 - all of it
