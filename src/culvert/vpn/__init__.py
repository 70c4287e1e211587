"""Culvert's own VPN: a tunnel interface whose packets go through TLS, or through datagrams."""
