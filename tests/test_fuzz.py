"""Damaged and hostile files: each loads to a value that can be saved and read again, or is a MelboError."""

from __future__ import annotations

import ast
import os
import random
import shutil
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from melbo.errors import MelboError
from support.fuzz_guard import SLACK, TIMES, Watch, in_child, limited
from support.fuzz_huge import HUGE
from support.fuzz_mutate import MAX_BYTES, Mutation, link, mutations_of
from support.fuzz_targets import TARGETS, Target, plain

ROOT = Path(__file__).resolve().parents[1]
SEED = int(os.environ.get("MELBO_FUZZ_SEED", "0"))
CASES = int(os.environ.get("MELBO_FUZZ", "300"))
"""Mutations over all loaders; `make bench` takes 10,000."""
ONLY = os.environ.get("MELBO_FUZZ_CASE")
"""A case's number, to run it alone."""
LINKS = 0.02
"""Share of the cases in which something else than a file lies in a file's place."""


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())


def mutate(rng: random.Random, folder: Path, outside: Path, kinds: tuple[Mutation, ...] = ()) -> str:
    """Change one file of the folder; what was done, in words."""
    path = rng.choice(files_of(folder))
    if not kinds and rng.random() < LINKS:
        return f"{path.name}: {link(rng, path, outside)}"
    done = []
    data = path.read_bytes()
    for _ in range(rng.choice((1, 1, 1, 2))):
        change = rng.choice(kinds or mutations_of(path.name))
        try:
            data = change(rng, data)
        except Exception:  # an earlier mutation left no JSON or zip to change
            continue
        done.append(change.__name__)
    path.write_bytes(data[:MAX_BYTES])
    return f"{path.name}: {', '.join(done)}"


def attempt(target: Target, folder: Path, watch: Watch, out: Path | None = None) -> tuple[Any, str]:
    """What the loader gives, or None where it refuses; and what is wrong with the way it did."""
    size = sum(path.stat().st_size for path in files_of(folder) if path.is_file() and not path.is_symlink())
    value, wrong = None, ""
    tracemalloc.start()
    with limited(size), watch.on(folder, out):
        try:
            value = target.load(folder)
        except MelboError as error:
            if "\n" in str(error) or len(str(error)) > 1000:
                wrong = f"its message is not one short line: {str(error)[:300]!r}"
        except Exception as error:
            wrong = f"{type(error).__name__}: {str(error)[:300]}"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if peak > TIMES * size + SLACK:
        wrong = wrong or f"{peak} bytes were allocated for files of {size} bytes"
    return value, "; ".join(filter(None, [*watch.found[:3], wrong]))


def check(target: Target, folder: Path, out: Path, watch: Watch) -> str:
    """What is wrong with how the loader takes the folder; "" where nothing is."""
    value, wrong = attempt(target, folder, watch)
    if wrong or value is None:
        return wrong
    try:
        if target.use is not None:
            target.use(value)
    except MelboError:
        pass
    except Exception as error:
        return f"loaded, but cannot be used: {type(error).__name__}: {str(error)[:300]}"
    if target.save is None:
        return ""
    try:
        with watch.on(out, out):
            target.save(value, out)
        again, wrong = attempt(target, out, watch)
        if wrong or again is None:
            return f"saved again, it is refused: {wrong}"
        return "" if plain(again) == plain(value) else "saved and read again, it is another value"
    except Exception as error:
        return f"loaded, but cannot be saved: {type(error).__name__}: {str(error)[:300]}"


def fuzz(target: Target, cases: list[int], place: Path) -> Callable[..., None]:
    """The work of a child process."""

    def work(watch: Watch, begin: Callable[[str], None], fail: Callable[[str], None]) -> None:
        warnings.simplefilter("ignore")
        whole, outside = place / "whole", place / "outside"
        whole.mkdir()
        outside.mkdir()
        (outside / "secret").write_text('{"secret": 1}')
        target.write(whole)
        target.load(whole)
        found = Counter[str]()
        for number in cases:
            rng = random.Random(f"{target.name}:{SEED}:{number}")
            folder, out = place / "in", place / "out"
            shutil.copytree(whole, folder)
            out.mkdir()
            said = f"{target.name}: MELBO_FUZZ_SEED={SEED} MELBO_FUZZ_CASE={number} "
            begin(said)
            said += mutate(rng, folder, outside, target.kinds)
            begin(said)
            wrong = check(target, folder, out, watch)
            found["loaded" if any(out.iterdir()) else "refused"] += 1
            if wrong:
                fail(f"{said}: {wrong}")
            shutil.rmtree(folder)
            shutil.rmtree(out)
        if [p.name for p in outside.iterdir()] != ["secret"] or (outside / "secret").read_text() != '{"secret": 1}':
            fail("something outside was written to")
        fail(f"#{found['loaded']} {found['refused']}")

    return work


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=[t.name for t in TARGETS])
def test_mutated_files_load_to_something_valid_or_are_refused(target: Target, tmp_path: Path) -> None:
    cases = [int(ONLY)] if ONLY else list(range(-(-CASES // len(TARGETS))))
    place = tmp_path / "fuzz"
    place.mkdir()
    found = in_child(fuzz(target, cases, place), tmp_path / "log")
    failures = [text for text in found if not text.startswith("#")]
    print(target.name, [t for t in found if t.startswith("#")])
    assert not failures, f"{len(failures)} of {len(cases)}, the first:\n" + "\n".join(failures[:10])


@pytest.mark.slow
@pytest.mark.parametrize("name", HUGE)
def test_files_that_cost_far_more_than_their_size_are_refused(name: str, tmp_path: Path) -> None:
    chosen, file, content = HUGE[name]
    target = next(t for t in TARGETS if t.name == chosen)

    def work(watch: Watch, begin: Callable[[str], None], fail: Callable[[str], None]) -> None:
        begin(name)
        whole = tmp_path / "in"
        whole.mkdir()
        target.write(whole)
        target.load(whole)
        (whole / file).write_bytes(content())
        value, wrong = attempt(target, whole, watch)
        if wrong or value is not None:
            fail(wrong or "it was loaded")

    assert in_child(work, tmp_path / "log") == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["writes", "opens", "hangs", "dies", "allocates", "raises"])
def test_the_watch_sees_what_a_loader_must_not_do(kind: str, tmp_path: Path) -> None:
    """Else the tests above could pass by seeing nothing."""

    def load(folder: Path) -> Any:
        if kind == "writes":
            (folder / "new").write_text("x")
        elif kind == "opens":
            (folder.parent / "secret").read_text()
        elif kind == "hangs":
            while True:
                pass
        elif kind == "dies":
            os.abort()
        elif kind == "allocates":
            return torch.zeros(2**28)
        raise KeyError(kind)

    def work(watch: Watch, begin: Callable[[str], None], fail: Callable[[str], None]) -> None:
        begin("the case")
        folder = tmp_path / "in"
        folder.mkdir()
        (tmp_path / "secret").write_text("x")
        fail(attempt(Target("bad", print, load), folder, watch)[1])

    words = {"writes": "open to write ", "opens": "open ", "hangs": "the case", "dies": "SIGABRT",
             "allocates": "memory", "raises": "KeyError: 'raises'"}  # fmt: skip
    found = in_child(work, tmp_path / "log")
    assert len(found) == 1 and words[kind] in found[0], found


def unsafe(source: str) -> list[str]:
    """What in a Python source could unpickle or run a file's content."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [n for n in names if n.split(".")[0] in ("pickle", "dill", "joblib", "shelve", "marshal")]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
            found += [] if node.attr == "UnpicklingError" else [f"pickle.{node.attr}"]
        elif isinstance(node, ast.Call):
            given = {k.arg: k.value for k in node.keywords}
            called, safe = ast.unparse(node.func), given.get("weights_only")
            if called.endswith("torch.load") and not (isinstance(safe, ast.Constant) and safe.value is True):
                found.append("torch.load")
            pickles = given.get("allow_pickle", ast.Constant(False))
            if called in ("eval", "exec", "yaml.load", "np.load", "numpy.load") or ast.unparse(pickles) != "False":
                found.append(called)
            trusted = given.get("trust_remote_code", ast.Constant(False))
            found += [] if ast.unparse(trusted) == "False" else ["trust_remote_code"]
    return found


@pytest.mark.slow
def test_no_file_is_unpickled_or_run() -> None:
    for line in ("import pickle", "from joblib import load", "torch.load(p)", "torch.load(p, weights_only=False)",
                 "pickle.loads(x)", "np.load(p)", "np.save(p, a, allow_pickle=True)", "eval(x)",
                 "f(x, trust_remote_code=True)"):  # fmt: skip
        assert unsafe(line), line
    files = [*sorted((ROOT / "melbo").rglob("*.py")), ROOT / "app.py"]
    assert not {str(p.relative_to(ROOT)): what for p in files if (what := unsafe(p.read_text(encoding="utf-8")))}
