"""Kubernetes objects as plain dictionaries from pure functions, one module per kind."""
