"""What layers and vectors are. One folder per question."""
