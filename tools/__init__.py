"""Tools of this repository; nothing of it is installed."""
