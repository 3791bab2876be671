"""Reports of several measurements on one model."""
