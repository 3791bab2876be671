"""The other ways to elicit: prompting, worked examples, many samples, fine-tuning."""
