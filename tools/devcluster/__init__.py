"""A real Kubernetes built from source, for this repository's demo and tests (see docs/devcluster.md)."""
