"""``chromozoo zoo``: maintainers' commands, which change the repository."""
