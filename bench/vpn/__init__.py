"""Two networks joined over a tunnel: what it costs, in a machine whose kernel has PPP (bench.uml)."""
