"""`culvert trace`: shows the TLS of connections, record by record."""

from culvert.cli.trace.commands import trace

__all__ = ["trace"]
