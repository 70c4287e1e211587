"""The version of this package, in the one place from which the build and the programs read it."""

__version__ = "0.1.0"
