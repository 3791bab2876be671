"""Steering: hooks, slices, generation, random vectors."""
