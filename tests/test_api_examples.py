"""The Python of docs/api.md and README.md runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import melbo

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("page", ["docs/api.md", "README.md"])
def test_the_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another, in one namespace; of those that need the Hub, the names exist."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        code = block
        if '"user/' in block:
            code = "\n".join(line for line in block.splitlines() if line.startswith("from "))
        exec(compile(code, page, "exec"), names)  # the project's own examples


def test_every_public_name_is_shown_and_exists() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in melbo.__all__:
        assert hasattr(melbo, name)
        assert name == "__version__" or re.search(rf"\b{name}\b", text), f"{name} has no example"
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = melbo.no_such_name
