"""Parts of `examples/demo.py`: from nothing to a picture, told while it happens."""
