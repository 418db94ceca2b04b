"""The stage compare: images of the golden prompts by a canary and by the stable revision, with the same seeds."""
