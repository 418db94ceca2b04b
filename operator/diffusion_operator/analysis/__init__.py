"""Whether a canary is as good as the stable revision: what Triton counted on both sides at the same time. Pure."""
