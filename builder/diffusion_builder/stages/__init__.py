"""The stages of a build, and all of them one after the other."""
