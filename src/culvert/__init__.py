"""TLS tunnels for programs that know nothing of TLS."""

from culvert.version import __version__

__all__ = ["__version__"]
