"""Interpretation: what layers and vectors do. One file per question; each is imported by its own name."""
