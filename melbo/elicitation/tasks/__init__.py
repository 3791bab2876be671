"""Tasks whose answers can be checked."""
