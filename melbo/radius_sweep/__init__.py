"""Which R: vectors of each radius, beside random vectors."""
