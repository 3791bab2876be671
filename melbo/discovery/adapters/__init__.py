"""Rank-1 adapters instead of vectors."""
