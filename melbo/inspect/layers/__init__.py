"""How strongly layers answer to earlier ones."""
