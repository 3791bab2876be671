"""notebooks/replication.ipynb runs from top to bottom on the embedded model, in a kernel of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

nbformat: Any = pytest.importorskip("nbformat")
nbclient: Any = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "replication.ipynb"


def test_the_notebook_is_short_and_holds_no_output() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= 15
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert not any(c.outputs or c.execution_count for c in code)


@pytest.mark.slow
def test_the_notebook_runs_on_the_organism(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELBO_PRESET", "organism")
    monkeypatch.setenv("MELBO_QUICK", "1")
    monkeypatch.setenv("MELBO_OUT", str(tmp_path / "out"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": ROOT}}
    )
    client.execute()
    printed = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))
    assert "of 4 vectors do something" in printed and f"{tmp_path / 'out' / 'report.html'}" in printed
    shown = "".join(
        o["data"].get("text/markdown", "") for c in notebook.cells for o in c.get("outputs", []) if "data" in o
    )
    assert shown.count("\n|") == 8
    assert "| Non-refusal | found | 0 |" in shown and "| Game | found | 1 |" in shown
    assert (tmp_path / "out" / "report.html").is_file()
