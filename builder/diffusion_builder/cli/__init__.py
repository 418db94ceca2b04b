"""Command line of the builder."""
