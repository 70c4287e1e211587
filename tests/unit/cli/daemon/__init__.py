"""A daemon that runs, as seen from outside."""
