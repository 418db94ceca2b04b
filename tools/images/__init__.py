"""Builds the project's container images with buildah, from nothing but package registries."""
