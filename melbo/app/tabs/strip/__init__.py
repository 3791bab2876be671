"""The strip tab."""
