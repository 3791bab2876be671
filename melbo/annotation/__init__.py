"""What each vector of a bank does."""
