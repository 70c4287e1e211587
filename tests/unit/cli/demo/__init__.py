"""Tests of the parts of the demo."""
