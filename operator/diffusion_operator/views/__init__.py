"""Observed Kubernetes objects, parsed once into what the planner asks of them."""
