"""Drawn data, tiny models and stand-ins that several tests share."""
