"""The bank tab."""
