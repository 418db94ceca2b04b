"""What operator and builder agree on: the custom resource, tensors, names."""
