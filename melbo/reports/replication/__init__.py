"""The replication's experiments on any model."""
