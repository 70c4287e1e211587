"""Tests of culvert.trace."""
