"""Measurements; each module prints one JSON line and a table."""
