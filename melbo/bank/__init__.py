"""Banks as data: load, save, select, merge, list, and the result files beside their vectors."""
