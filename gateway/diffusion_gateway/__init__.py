"""An OpenAI-compatible HTTP API for images in front of Triton."""
