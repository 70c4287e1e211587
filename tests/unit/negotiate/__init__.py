"""Tests of the protocols around a handshake, without a network."""
