"""Load a causal language model and find its blocks."""
