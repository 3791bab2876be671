"""Packages of extras: what works without them, and what a missing one says."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from melbo.bank.vector_bank import VectorBank
from melbo.elicitation.baselines.lora import LoraConfig, fine_tune
from melbo.elicitation.monitoring import roc
from melbo.elicitation.tasks.checks import Check
from melbo.elicitation.tasks.load import Task
from melbo.errors import MissingPackageError
from melbo.formats.mixture import mix
from melbo.formats.writers.control_gguf import export_control_gguf
from melbo.inspect.sae.compare import decompose
from melbo.measure import text_metrics
from melbo.measure.embeddings import load_embedder
from melbo.measure.llm.judge import LLMJudge
from melbo.measure.text_metrics import language
from melbo.measure.traits import phrases
from melbo.models.load import LoadedModel
from melbo.prompts import chat
from melbo.runs.figures import check_drawable
from support.saes import random_sae

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HIDE = """
import importlib.machinery, json, sys
hidden = set(json.loads(sys.argv.pop(1)))
find = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in hidden else find(name, path, target)
importlib.machinery.PathFinder.find_spec = find_spec
"""
"""Makes modules look as if they were not installed, to `importlib.util.find_spec` too."""


def base_packages() -> set[str]:
    """Distributions that the base dependencies bring, whatever else is installed."""
    found: set[str] = set()
    waiting = [Requirement(line) for line in PROJECT["dependencies"]]
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        if name in found:
            continue
        found.add(name)
        try:
            listed = requires(name) or []
        except PackageNotFoundError:
            continue
        for extra in asked.extras or {""}:
            waiting += [r for r in map(Requirement, listed) if r.marker is None or r.marker.evaluate({"extra": extra})]
    return found


def other_modules() -> list[str]:
    """Top-level modules that only other distributions hold."""
    base = base_packages() | {"melbo"}
    owners = packages_distributions()
    return [module for module, names in owners.items() if not {canonicalize_name(n) for n in names} & base]


@pytest.mark.slow
def test_library_command_line_and_training_need_the_base_dependencies_only(tmp_path: Path) -> None:
    hidden = other_modules()
    extras = {"gradio", "matplotlib", "sentence_transformers", "sklearn", "py3langid", "gguf", "openai", "peft"}
    assert extras <= set(hidden)
    train = ["train", "--n-vectors", "2", "--steps", "2", "--radius", "0.7", "--out", "bank"]
    runs = [
        "from melbo import *",
        *(f"sys.argv[1:] = {args}; import melbo.__main__ as m; m.main()" for args in (["--help"], train)),
    ]
    for code in runs:
        done = subprocess.run(
            [sys.executable, "-c", HIDE + code, json.dumps(hidden)],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": ""},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    assert len(VectorBank.load(tmp_path / "bank")) == 2


def test_a_missing_package_is_named_with_its_extra(
    tiny: LoadedModel, tiny_bank: VectorBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solved = Task(tuple(chat("?")), Check("exact", "a"), "a")
    uses: list[tuple[str, str, Callable[[], Any]]] = [
        ("app", "gradio", lambda: run_path(str(ROOT / "app.py"))),
        ("app", "matplotlib", lambda: check_drawable(".png")),
        ("measure", "sentence_transformers", load_embedder),
        ("measure", "sklearn", lambda: phrases.phrases_of("A text of some words.")),
        ("measure", "sklearn", lambda: roc(torch.zeros(1), torch.ones(1))),
        ("measure", "sklearn", lambda: decompose(random_sae(), tiny_bank.vectors)),
        ("measure", "py3langid", lambda: language("A text of more than twenty letters.")),
        ("formats", "gguf", lambda: export_control_gguf(mix(tiny_bank, [0]), tmp_path / "v.gguf", "repeng")),
        ("judge", "openai", LLMJudge),
        ("lora", "peft", lambda: fine_tune(tiny, [solved], LoraConfig())),
    ]
    assert {extra for extra, _, _ in uses} == set(PROJECT["optional-dependencies"]) - {"all", "dev"}
    text_metrics._identifier.cache_clear()
    phrases._stop_words.cache_clear()
    for extra, package, use in uses:
        with monkeypatch.context() as patch:
            for name in [
                n for n in sys.modules if n.startswith((f"{package}.", "melbo.app", "melbo.measure.llm.client"))
            ]:
                patch.delitem(sys.modules, name)
            patch.setitem(sys.modules, package, None)
            with pytest.raises(MissingPackageError, match=rf"^this needs {package}: pip install 'melbo\[{extra}\]'$"):
                use()
    assert not list(tmp_path.iterdir())
