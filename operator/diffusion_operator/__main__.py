"""`python -m diffusion_operator`."""

from diffusion_operator.cli import main

main()
