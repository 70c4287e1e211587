"""A daemon that runs, as seen and told from outside: by its admin endpoint, or by its pid file."""
