"""Tests of culvert.cli.ca."""
