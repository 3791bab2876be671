"""The app: a model without and with steering vectors, side by side. `python app.py` starts it.

Environment: MELBO_MODEL (Hub id, folder, GGUF file, "smollm2" or "organism"), MELBO_BANK (a folder or a repository of
the Hub), MELBO_REVISION (its commit), MELBO_MCP=1 (an MCP server too), and on a Space MELBO_MODELS (models that
visitors may load). Without the first two: smollm2 with vectors/smollm2-weekend, or, where one of them is not to be had,
the embedded organism with its own bank. With a model on this machine nothing outside it is contacted.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

from melbo.errors import MelboError
from melbo.runs.optional import needs

try:
    with needs("app"):  # first: it imports `spaces`, which must precede CUDA
        from melbo.app import build_demo, launch_options
    from melbo.app.start import start

    begun = start(Path(__file__).parent / "vectors")
    if begun.note:
        print(f"app.py: {begun.note}", file=sys.stderr)
    demo = build_demo(begun.loaded, begun.bank)
except MelboError as error:
    if __name__ != "__main__":
        raise
    print(f"app.py: {error}", file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":
    demo.launch(**launch_options())
