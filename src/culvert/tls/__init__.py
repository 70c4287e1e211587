"""TLS without a network: contexts, the engine of one connection, verification and OpenSSL's own words."""
