"""Tests of TLS without a network."""
