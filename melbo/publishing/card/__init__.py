"""The model card of a bank."""
