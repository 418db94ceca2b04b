"""`python -m diffusion_builder`, for images that do not install the script."""

from diffusion_builder.cli.main import main

main()
