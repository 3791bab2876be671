"""Which R to use: vectors at each radius, next to random vectors."""
