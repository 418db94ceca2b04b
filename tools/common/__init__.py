"""What the repository's tools share: errors, processes, files, packages and the frame of a command line."""
