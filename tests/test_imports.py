"""Imports point one way. Every file of melbo/ and app.py is read with `ast`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [*sorted((ROOT / "melbo").rglob("*.py")), ROOT / "app.py"]
CORE = ("config", "objective", "prompts", "models", "steering", "bank", "slices", "generate", "discover")
LEVELS = (
    ("errors",),
    ("config", "adapter_config", "objective", "metrics", "memory"),
    ("prompts", "models", "steering", "hub", "hub_errors", "bank", "adapter_bank", "card"),
    ("slices", "calibrate", "generate", "space", "export", "measure", "shared_draws"),
    ("discover", "sweep", "annotate", "interpret", "elicit", "monitor"),
    ("study", "audit"),
    ("ui",),
    ("cli",),
)
"""What may import what: a module imports from its own level and those above it in this list."""


def module_name(path: Path) -> str:
    """melbo/discover/melbo.py -> melbo.discover.melbo; a package is its folder."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """Full names of all that a file imports, anywhere in it; `from a import b` counts as a and a.b."""
    name = module_name(path)
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            found |= {source} | {f"{source}.{alias.name}" for alias in node.names}
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def ours(path: Path) -> set[str]:
    """Second parts of the melbo modules that a file imports: {"errors", "models"}; the package itself is "melbo"."""
    names = {n for n in imported(path) if within(n, "melbo")}
    found = {n.split(".")[1] for n in names if "." in n}
    root_names = {p.stem if p.is_file() else p.name for p in (ROOT / "melbo").iterdir()}
    return {n if n in root_names else "melbo" for n in found}


def part(path: Path) -> str:
    """The file's place in the tree: "errors", "discover", "ui", ...; "" for the package itself and app.py."""
    names = module_name(path).split(".")
    return names[1] if len(names) > 1 else ""


def level(name: str) -> int | None:
    return next((i for i, names in enumerate(LEVELS) if name in names), None)


@pytest.fixture(params=FILES, ids=[module_name(p) for p in FILES])
def path(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_the_reader_sees_every_kind_of_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests below could pass by seeing nothing."""
    assert {"errors", "models", "config", "discover"} <= {part(p) for p in FILES}
    monkeypatch.setattr("test_imports.ROOT", tmp_path)
    file = tmp_path / "melbo" / "discover" / "new.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "import gradio as gr\nfrom melbo.ui import build\nfrom . import shared\nfrom ..organism.corpus import Mix\n"
        "def late():\n    import melbo.study\n    from melbo import hub\n"
    )
    (tmp_path / "melbo" / "hub.py").touch()
    expected = {"gradio", "melbo.ui", "melbo.discover.shared", "melbo.organism.corpus", "melbo.study", "melbo.hub"}
    assert imported(file) >= expected
    assert {"discover", "hub"} <= ours(file)


def test_only_the_ui_imports_gradio(path: Path) -> None:
    if part(path) != "ui" and path.name != "app.py":
        assert not {n for n in imported(path) if within(n, "gradio") or within(n, "gradio_client")}


def test_errors_import_nothing_of_melbo(path: Path) -> None:
    if part(path) == "errors":
        assert not ours(path)


def test_config_and_objective_import_errors_only(path: Path) -> None:
    if part(path) in ("config", "objective"):
        assert ours(path) <= {"errors"}


def test_the_core_imports_neither_organism_nor_ui_nor_the_whole_package(path: Path) -> None:
    if part(path) in CORE:
        assert not ours(path) & {"organism", "ui", "melbo", "__main__"}
        assert not {n for n in ours(path) if n.startswith("cli")}


def test_imports_point_downward(path: Path) -> None:
    own = level(part(path))
    if own is not None:
        upward = {n for n in ours(path) if (other := level(n)) is not None and other > own}
        assert not upward, f"{module_name(path)} imports {sorted(upward)} from a higher level"


def test_the_organism_does_not_import_the_ui(path: Path) -> None:
    if part(path) == "organism":
        assert "ui" not in ours(path)


def test_nothing_imports_the_app(path: Path) -> None:
    assert not {n for n in imported(path) if within(n, "app")}
