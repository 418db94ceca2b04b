"""The contract's tensors. In a Triton model repository the contract's own file is in this one's place."""

from diffusion_contract.tensors import *  # noqa: F403 - all of it
