"""The command line: the only part of Culvert that knows the terminal."""

from culvert.cli.dispatch import main

__all__ = ["main"]
