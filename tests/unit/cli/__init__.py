"""Tests of the command line, by real processes where they stand for what the user types."""
