"""Measurements of completions."""
