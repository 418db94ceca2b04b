"""The contract's enums. In a Triton model repository the contract's own file is in this one's place."""

from diffusion_contract.enums import *  # noqa: F403 - all of it
