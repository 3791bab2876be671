"""What long work shares: progress, checkpoints, digests, atomic files, free memory."""
