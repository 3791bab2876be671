"""The app: a model without and with steering vectors, side by side. `python app.py` starts it.

Environment: MELBO_MODEL (Hub id, folder or "organism", the default), MELBO_BANK (a folder or a repository of the Hub;
the default is the organism's own bank), MELBO_REVISION (its commit), MELBO_MCP=1 (an MCP server too), and on a Space
MELBO_MODELS (models that visitors may load). With a local model nothing outside this machine is contacted.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

MODEL = os.environ.get("MELBO_MODEL", "organism")
BANK = os.environ.get("MELBO_BANK", str(Path(__file__).parent / "vectors" / "organism-bomb"))

# Both are read when gradio and huggingface_hub are imported.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
if (MODEL == "organism" or Path(MODEL).is_dir()) and Path(BANK).is_dir():
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

from melbo.errors import MelboError  # noqa: E402
from melbo.runs.optional import needs  # noqa: E402

try:
    with needs("app"):  # first: it imports `spaces`, which must precede CUDA
        from melbo.app import build_demo, launch_options
    from melbo.bank.vector_bank import Source, VectorBank
    from melbo.models.load import load_model

    bank = VectorBank.from_pretrained(BANK, revision=os.environ.get("MELBO_REVISION"))
    if bank.source is None:
        bank = replace(bank, source=Source(None, None, Path(BANK)))
    revision = bank.base_model.revision if bank.base_model.id == MODEL else None
    demo = build_demo(load_model(MODEL, revision=revision), bank)
except MelboError as error:
    if __name__ != "__main__":
        raise
    print(f"app.py: {error}", file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":
    demo.launch(**launch_options())
