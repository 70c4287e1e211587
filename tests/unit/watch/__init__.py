"""Tests of what notices changed files."""
