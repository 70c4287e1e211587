"""Tests of the protocols around TLS: no socket, no loop."""
