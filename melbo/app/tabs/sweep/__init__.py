"""The sweep tab."""
