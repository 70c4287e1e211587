"""Tests of the admin endpoint without a daemon."""
