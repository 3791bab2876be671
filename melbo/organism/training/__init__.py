"""Training, labels and recall of the organism."""
