"""Parts of `examples/demo.py`: from nothing to an image, told while it happens."""
