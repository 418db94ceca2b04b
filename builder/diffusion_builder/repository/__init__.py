"""Triton model repositories: unrolled ensembles, configurations, Python models."""
