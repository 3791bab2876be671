"""Discovery: prompts in, a bank of steering vectors out."""
