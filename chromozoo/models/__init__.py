"""The model zoo: registry, networks, weights."""
