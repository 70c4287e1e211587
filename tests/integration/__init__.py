"""Tests of the product as its user meets it: the process, its configuration, its log, its sockets."""
