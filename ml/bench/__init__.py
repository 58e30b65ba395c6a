"""How near the inference service comes to what its core can do: `make bench-inference`."""
