"""An optional language model as judge and namer."""
