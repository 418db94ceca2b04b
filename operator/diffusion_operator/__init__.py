"""Kubernetes operator for DiffusionPipeline resources."""
