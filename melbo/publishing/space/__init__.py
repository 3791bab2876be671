"""A Hugging Face Space that shows one bank."""
