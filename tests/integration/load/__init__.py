"""A load on a tunnel, as a program of its own that accounts for every byte: `python -m integration.load`."""
