"""`python -m diffusion_gateway`."""

from diffusion_gateway.cli import main

main()
