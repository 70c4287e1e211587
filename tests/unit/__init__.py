"""Tests of one part at a time: no daemon is started, no network used."""
