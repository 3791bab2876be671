"""What vectors do to tokens."""
