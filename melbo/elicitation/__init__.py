"""Put vectors to work: elicit hidden capabilities, find backdoors, study refusals. docs/elicit.md says how."""
