"""Audit of a model before its release."""
