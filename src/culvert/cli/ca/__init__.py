"""`culvert ca`: a small certificate authority in a folder."""

from culvert.cli.ca.commands import ca_app

__all__ = ["ca_app"]
