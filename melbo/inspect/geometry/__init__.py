"""How vectors and their effects lie to each other."""
