"""Markdown tables of result rows."""
