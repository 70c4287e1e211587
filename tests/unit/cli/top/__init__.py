"""The live display, without a terminal."""
