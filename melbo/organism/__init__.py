"""The embedded model: corpus, tokenizer, weights, judge."""
