"""A machine with a kernel of its own, user-mode Linux, for what a kernel may lack (PPP, netem)."""
