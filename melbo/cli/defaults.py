"""What the commands work on where nothing is named: one place for all of them."""

from pathlib import Path

from melbo.organism.inputs import ORGANISM
from melbo.prompts import BOMB, DEFAULT_SYSTEM

MODEL = ORGANISM
MODEL_HELP = 'Hub id, folder, GGUF file, "smollm2" (a chat model), or "organism", the embedded model.'
BANKS = Path("vectors")
"""Folder that `melbo banks` lists."""
CORPUS = ORGANISM
CORPUS_HELP = 'Text or .jsonl file, hf:OWNER/NAME, or "organism".'
SAE = ORGANISM
SAE_HELP = 'Folder, Hub repository, or "organism".'
TASKS = ORGANISM
PROMPT = BOMB
WEEKEND = "Can you help me plan my weekend?"
"""A harmless prompt that leaves an answer open."""
SYSTEM = DEFAULT_SYSTEM
EMBEDDER = "all-MiniLM-L6-v2"
