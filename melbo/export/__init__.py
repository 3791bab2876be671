"""Exports: what MELBO found, in formats that other libraries load. One file per format."""
