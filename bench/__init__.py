"""Culvert and Debian's stunnel side by side: the same work in interleaved rounds, and the ratios."""
