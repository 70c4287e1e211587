"""A VPN's messages over DTLS: one packet, one record, one datagram."""
