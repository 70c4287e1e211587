"""Tests of the supervisor: real forks of a small generation."""
