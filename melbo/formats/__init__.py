"""Other libraries' files, in and out."""
