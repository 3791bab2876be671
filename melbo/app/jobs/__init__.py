"""Long work of the app: one queue, threads, waiting visitors."""
