"""The inspect tab."""
