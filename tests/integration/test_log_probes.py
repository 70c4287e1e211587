"""Probes, summaries and levels in a log of text, and standard error that nobody reads."""

from __future__ import annotations
