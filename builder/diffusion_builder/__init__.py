"""Turns a diffusers checkpoint into engines and an unrolled Triton ensemble."""
