"""The steer tab."""
