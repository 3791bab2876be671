"""What an answer is like, in words: its form, its subject, its speaker."""
