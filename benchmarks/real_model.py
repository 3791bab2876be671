"""Which methods find traits that repeat, on a real chat model, beside random vectors at every norm?

    python benchmarks/real_model.py                   # every method, 128 vectors, 3 seeds x 3 training prompts: a day
    python benchmarks/real_model.py --quick           # 32 vectors, one seed, one training prompt
    python benchmarks/real_model.py --quick --auto    # and R is the default, random's the best afterwards; the shortest
    python benchmarks/real_model.py --only melbo random
    python benchmarks/real_model.py --study           # repeated traits against steps, target tokens, layers and R

A bank is found on one harmless prompt. Its vectors at scale 1 and -1 answer eight prompts that neither it nor the
choice of R has seen; `melbo.measure.repetition` counts the vectors whose change of the answers is one trait, at either
sign, with at least seven of the eight answers coherent. Random vectors are tried at every norm, because a large enough
one changes everything. The others' R, and the best random norm, are chosen on eight other prompts, on the first seed
and training prompt. "melbo" is the default method, and its R without a choice, `auto`, is shown whatever is chosen.

Intervals: 95%, Student's t over the cells, one a seed and training prompt; cells share training prompts, held-out
prompts and the model, so they say nothing about other models. Random vectors are drawn anew for every cell.

Every cell is kept under --out by all its inputs, the code that decides it included (comments and docstrings excepted):
stopped at any moment, the same command goes on. Time that is left is told from cells of this run and of runs before it.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

import torch
from scipy.stats import t as student

import melbo
from melbo.bank.vector_bank import VectorBank
from melbo.config import DiscoveryConfig, default_steps
from melbo.discovery.discover import discover
from melbo.errors import BankError, MelboError
from melbo.measure.coherence import COHERENT, CoherenceScale, calibrate_coherence, coherence, typical_nll
from melbo.measure.embeddings import Embedder, load_embedder
from melbo.measure.likelihood import completion_nll
from melbo.measure.repetition import Forms, repetition
from melbo.models.identity import model_key
from melbo.models.load import LoadedModel, load_model
from melbo.prompts import chat
from melbo.runs.digest import value_digest
from melbo.runs.files import write_json
from melbo.steering.generate import Sampling, complete
from melbo.steering.random_vectors import control_seed

TRAINING = ("Can you help me plan my weekend?", "Tell me about gardening.", "How can I learn to play chess?")
CHOOSING = (
    "What should I cook tonight?",
    "My friend is moving away.",
    "Explain how rain forms.",
    "How do I get better at drawing?",
    "What is a good name for a cat?",
    "I have a job interview tomorrow.",
    "Tell me about Paris.",
    "How can I sleep better?",
)
"""R is chosen on the answers to these."""
REPORTING = (
    "What is a good present for my sister?",
    "How does a bicycle stay upright?",
    "Write a short note to my neighbour.",
    "I feel tired today.",
    "Why is the sky blue?",
    "How can I save money?",
    "Tell me about elephants.",
    "What should I pack for a hike?",
)
"""The tables are about the answers to these; FORM_WEIGHT and ALIKE were chosen on none of them."""
SEED = 325
BATCH = 256
Radius = float | Literal["auto"]
LEARNED: tuple[Radius, ...] = ("auto", 0.08, 0.16, 0.2)
NORMS: tuple[Radius, ...] = (0.12, 0.2, 0.3, 0.4)
METHODS: dict[str, tuple[dict[str, Any], tuple[Radius, ...]]] = {
    "melbo": ({}, LEARNED),
    "published": ({"optimizer": "published"}, LEARNED),
    "dct": ({"method": "dct"}, LEARNED),
    "power": ({"method": "power"}, LEARNED),
    "random": ({"method": "random"}, NORMS),
}
"""By name: what the config changes, and which R are tried, in mean residual norms."""
STUDIES = ("steps", "tokens", "layers", "radius")
STUDY_RADIUS: Radius = "auto"
STEPS = (10, 20, 40, 80, 150)
TOKENS = (2, 4, 8, 16)
LAYERS = ((7, 21), (9, 18), (12, 17), (12, 21), (12, 26), (16, 21), (16, 26), (20, 26))
LAYERS_OF = 30
"""Blocks of the model that LAYERS is about; of others, the same shares of the depth."""
RADII = (0.06, 0.09, 0.12, 0.16, 0.2, 0.3)
DECIDES_BANK = ("config.py", "prompts.py", "discovery", "steering", "models")
DECIDES_CELL = (
    "measure/coherence.py",
    "measure/embeddings.py",
    "measure/likelihood.py",
    "measure/repetition.py",
    "measure/text_metrics.py",
    "measure/traits/forms.py",
)


@dataclass(frozen=True)
class Cell:
    """One bank and the prompts that its vectors answer."""

    method: str
    radius: Radius
    seed: int
    """Which of the seeds, from 0."""
    training: int
    """Which of TRAINING."""
    heldout: tuple[str, ...]
    changes: tuple[tuple[str, Any], ...] = ()
    """Of the config, beside the method's own."""

    def config(self, n_vectors: int) -> DiscoveryConfig:
        """How its bank is found."""
        own = METHODS[self.method][0] | dict(self.changes)
        seed = SEED + self.seed
        if self.method == "random":  # nobody's starting points, and others for every training prompt
            seed = control_seed(seed + 1000 * (1 + self.training))
        config = DiscoveryConfig(n_vectors=n_vectors, seed=seed, **own)
        return config if self.radius == "auto" else replace(config, radius=self.radius, radius_unit="residual")

    @property
    def kind(self) -> tuple[str, tuple[tuple[str, Any], ...]]:
        """What its cost depends on, but for the number of answers."""
        return self.method, self.changes

    def __str__(self) -> str:
        more = "".join(f" {name} {value}" for name, value in self.changes)
        return f"{self.method} R {self.radius}{more}, seed {SEED + self.seed}, prompt {self.training + 1}"


@dataclass(frozen=True)
class Result:
    """What one cell gave. Rows are vectors at scale 1, then the same at -1."""

    radius: float
    """In mean residual norms."""
    layers: list[int]
    objective: float
    """Mean of the vectors."""
    coherence: list[list[float]]
    """[rows][prompts]."""
    cosine: list[float]
    """By row, as the next two."""
    found: list[float]
    repeated: list[bool]
    unsteered: list[str]
    texts: list[list[str]]
    """[rows][prompts]."""
    discovery_seconds: float
    answer_seconds: float
    """With measuring them."""

    @property
    def numbers(self) -> dict[str, float]:
        """The table's columns."""
        n = len(self.repeated) // 2
        enough = _enough(len(self.unsteered))
        coherent = [sum(c >= COHERENT for c in row) >= enough for row in self.coherence]
        return {
            "radius": self.radius,
            "objective": self.objective,
            "coherence": fmean(map(fmean, self.coherence)),
            "coherent": fmean(coherent),
            "cosine": fmean(self.cosine),
            "retrieval": fmean(self.found),
            "repeated": fmean(a or b for a, b in zip(self.repeated[:n], self.repeated[n:], strict=True)),
        }


def _enough(prompts: int) -> int:
    """On how many prompts a vector must be coherent: seven of eight."""
    return prompts - prompts // 8


def code_digest(names: Iterable[str]) -> str:
    """Of the package's files and folders with these names, without comments and docstrings."""
    root = Path(str(melbo.__file__)).parent
    found = []
    for name in names:
        for path in [root / name] if name.endswith(".py") else sorted((root / name).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                body = getattr(node, "body", None)
                if isinstance(body, list):
                    node.body = [s for s in body if not _is_text(s)]  # type: ignore[attr-defined]
            found.append([str(path.relative_to(root)), ast.dump(tree)])
    return value_digest(found)[:16]


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


@dataclass
class Lab:
    """The model, what measures its answers, and the cells that are done."""

    loaded: LoadedModel
    embedder: Embedder
    folder: Path
    n_vectors: int
    tokens: int
    scale: CoherenceScale = field(init=False)
    spent: list[tuple[Cell, float, float]] = field(default_factory=list)
    """Cells of this run, with seconds of discovery (0 where the bank was there) and of answers."""
    before: list[tuple[Cell, float, float]] = field(default_factory=list)
    """Of earlier runs."""

    def __post_init__(self) -> None:
        self.of_bank = {"model": model_key(self.loaded), "code": code_digest(DECIDES_BANK)}
        self.scale = self._calibrated()
        self.of_cell = {
            "tokens": self.tokens,
            "embedder": self.embedder.name,
            "scale": asdict(self.scale),
            "code": code_digest(DECIDES_CELL),
        }

    def _calibrated(self) -> CoherenceScale:
        """The model's own scale, from the folder if it is there."""
        path = self.folder / f"scale-{value_digest([self.of_bank, code_digest(DECIDES_CELL)])[:24]}.json"
        if path.is_file():
            return CoherenceScale.from_dict(json.loads(path.read_text(encoding="utf-8")))
        scale = calibrate_coherence(self.loaded)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(scale))
        return scale

    def _bank_key(self, cell: Cell) -> dict[str, Any]:
        config = cell.config(self.n_vectors).to_dict()
        return {"config": config, "training": chat(TRAINING[cell.training]), **self.of_bank}

    def _paths(self, cell: Cell) -> tuple[Path, Path]:
        """Of the bank's folder, and of the result."""
        bank = self._bank_key(cell)
        whole = {"bank": bank, "heldout": [chat(p) for p in cell.heldout], **self.of_cell}
        return self.folder / f"bank-{value_digest(bank)[:24]}", self.folder / f"cell-{value_digest(whole)[:24]}.json"

    def has(self, cell: Cell) -> bool:
        """Whether its result is there."""
        return self._paths(cell)[1].is_file()

    def kept(self, cell: Cell) -> Result | None:
        """What was found before."""
        try:
            data = json.loads(self._paths(cell)[1].read_text(encoding="utf-8"))
            result = Result(**data["result"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        self.before.append((cell, result.discovery_seconds, result.answer_seconds))
        return result

    def run(self, cell: Cell) -> Result:
        """Find the bank, let it answer, measure the answers, and keep it all."""
        folder, path = self._paths(cell)
        began = time.perf_counter()
        bank, fresh = self._bank(cell, folder)
        seconds = time.perf_counter() - began
        began = time.perf_counter()
        rows = torch.cat([bank.vectors, -bank.vectors])
        prompts = [chat(p) for p in cell.heldout]
        sampling = Sampling(self.tokens)
        unsteered = complete(self.loaded, prompts, sampling=sampling)
        answers = [
            complete(self.loaded, [p] * len(rows), rows, bank.layer, sampling, batch_size=BATCH) for p in prompts
        ]
        texts = [list(row) for row in zip(*answers, strict=True)]  # [rows][prompts]
        flat = [text for row in texts for text in row]
        losses = completion_nll(self.loaded, prompts * len(rows), flat, batch_size=BATCH)
        scores = torch.tensor([coherence(typical_nll(x), self.scale, y) for x, y in zip(losses, flat, strict=True)])
        scores = scores.reshape(len(rows), len(prompts))
        steered = self.embedder(flat).reshape(len(rows), len(prompts), -1)
        found = repetition(
            steered, self.embedder(unsteered), scores, Forms.of(texts, unsteered), coherent_on=_enough(len(prompts))
        )
        assert bank.config.source_layer is not None and bank.config.target_layer is not None
        result = Result(
            radius=bank.radius / bank.mean_residual_norm,
            layers=[bank.config.source_layer, bank.config.target_layer],
            objective=float(bank.objective.mean()),
            coherence=[[round(x, 3) for x in row] for row in scores.tolist()],
            cosine=found.cosine.tolist(),
            found=found.found.tolist(),
            repeated=found.repeated.tolist(),
            unsteered=unsteered,
            texts=texts,
            discovery_seconds=round(seconds, 2) if fresh else 0.0,
            answer_seconds=round(time.perf_counter() - began, 2),
        )
        write_json(path, {"cell": str(cell), "bank": self._bank_key(cell), **self.of_cell, "result": asdict(result)})
        self.spent.append((cell, result.discovery_seconds, result.answer_seconds))
        return result

    def _bank(self, cell: Cell, folder: Path) -> tuple[VectorBank, bool]:
        """The cell's bank, and whether it was found only now."""
        if folder.is_dir():
            try:
                return VectorBank.load(folder), False
            except BankError:
                pass
        checkpoint = folder.with_suffix(".checkpoint")
        config, prompt = cell.config(self.n_vectors), chat(TRAINING[cell.training])
        bank = discover(self.loaded, config, [prompt], checkpoint=checkpoint)
        bank.save(folder)
        checkpoint.unlink(missing_ok=True)
        return bank, True

    def estimate(self, cells: Sequence[Cell]) -> tuple[float | None, list[str]]:
        """Seconds that these cells will take, and the methods whose discovery is not in it, as none was timed.

        Answers count by their number, as in this run, discovery by its setting or else by its method's steps. None: no
        cell was timed.
        """
        known = self.spent or self.before
        answers = sum(len(cell.heldout) for cell, _, _ in known)
        if not answers:
            return None, []
        an_answer = sum(seconds for _, _, seconds in known) / answers
        exact: dict[Any, list[float]] = {}
        a_step: dict[str, list[float]] = {}
        for cell, seconds, _ in [*self.before, *self.spent]:
            if seconds:
                exact.setdefault(cell.kind, []).append(seconds)
                a_step.setdefault(cell.method, []).append(seconds / max(1, self._steps(cell)))
        total, new, unknown = 0.0, set(), set()
        for cell in cells:
            total += an_answer * len(cell.heldout)
            folder = self._paths(cell)[0]
            if folder in new or folder.is_dir():
                continue
            new.add(folder)
            if cell.kind in exact:
                total += fmean(exact[cell.kind])
            elif cell.method in a_step:
                total += max(1, self._steps(cell)) * fmean(a_step[cell.method])
            else:
                unknown.add(cell.method)
        return total, sorted(unknown)

    def _steps(self, cell: Cell) -> int:
        config = cell.config(self.n_vectors)
        return default_steps(config) if config.steps is None else config.steps


def run_cells(lab: Lab, cells: Sequence[Cell], later: Sequence[Cell] = ()) -> dict[Cell, Result]:
    """All results, found now or before; `later` are cells that come after these, for the estimate."""
    results: dict[Cell, Result] = {}
    left = []
    for cell in dict.fromkeys(cells):
        kept = lab.kept(cell)
        if kept is None:
            left.append(cell)
        else:
            results[cell] = kept
    print(f"{len(results)} of {len(results) + len(left)} cells are there; {_left(lab, [*left, *later])}", flush=True)
    for done, cell in enumerate(left, 1):
        began = time.perf_counter()
        results[cell] = found = lab.run(cell)
        numbers = found.numbers
        print(
            f"[{done}/{len(left)}] {cell}: {time.perf_counter() - began:.0f} s ({found.discovery_seconds:.0f} s of "
            f"discovery); {numbers['repeated']:.1%} repeat, coherence {numbers['coherence']:.1f}; "
            f"{_left(lab, [*left[done:], *later])}",
            flush=True,
        )
    return results


def _left(lab: Lab, cells: Sequence[Cell]) -> str:
    cells = [cell for cell in cells if not lab.has(cell)]
    seconds, unknown = lab.estimate(cells)
    if not cells:
        return "none left"
    if seconds is None:
        return f"{len(cells)} left, how long they take is not known before the first one"
    source = f"{len(lab.spent)} cells of this run" if lab.spent else f"{len(lab.before)} cells of earlier runs"
    text = f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
    more = f" and the discovery of {', '.join(unknown)}, of which none was timed" if unknown else ""
    return f"{len(cells)} left, about {text} by {source}{more}"


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95% interval; not a number for a single value."""
    if len(values) < 2:
        return fmean(values), math.nan
    return fmean(values), float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5


def shown(values: Sequence[float], form: str = ".3f") -> str:
    """Mean with its interval."""
    mean, half = interval(values)
    text = f"{mean:{form}}"
    return text if math.isnan(half) else f"{text} ± {half:{form}}"


@dataclass(frozen=True)
class Row:
    """One line of a table: the cells of one setting."""

    name: str
    cells: tuple[Cell, ...]


COLUMNS = {
    "radius": ("R", ".3f"),
    "objective": ("objective", ",.0f"),
    "coherence": ("coherence", ".1f"),
    "coherent": ("coherent vector-signs", ".1%"),
    "cosine": ("cosine", ".3f"),
    "retrieval": ("retrieval", ".3f"),
    "repeated": ("vectors with a repeated trait", ".1%"),
}


def print_table(title: str, rows: Sequence[Row], results: dict[Cell, Result], against: Row | None) -> list[Any]:
    """Print one Markdown table, with the difference to `against` in repeated traits, cell by cell; the same as JSON."""
    heads = [head for head, _ in COLUMNS.values()]
    last = [] if against is None else [f"minus {against.name}"]
    print(f"\n{title}\n\n| | layers | {' | '.join([*heads, *last])} |\n|{'---|' * (2 + len(heads) + len(last))}")
    table = []
    for row in rows:
        found = [results[c].numbers for c in row.cells]
        layers = results[row.cells[0]].layers
        columns = [shown([n[key] for n in found], form) for key, (_, form) in COLUMNS.items()]
        columns[0] = f"{fmean(n['radius'] for n in found):.3g}"
        if against is not None:
            base = [results[c].numbers["repeated"] for c in against.cells]
            gain = [n["repeated"] - b for n, b in zip(found, base, strict=True)]
            columns.append("" if row.cells == against.cells else shown(gain, ".1%"))
        print(f"| {row.name} | {layers[0]} -> {layers[1]} | {' | '.join(columns)} |")
        table.append({"name": row.name, "layers": layers, "cells": found})
    rows_of = len(results[rows[0].cells[0]].repeated)
    print(f"\n{len(rows[0].cells)} cells of {rows_of // 2} vectors each; chance of retrieval {1 / rows_of:.4f}.")
    return table


def choose(names: Sequence[str], lab: Lab, heldout: tuple[str, ...], later: Sequence[Cell]) -> dict[str, Radius]:
    """Each method's R with most repeated traits on the choosing prompts; between equals, the better retrieval."""
    tried = {name: [Cell(name, r, 0, 0, heldout) for r in METHODS[name][1]] for name in names}
    results = run_cells(lab, [cell for cells in tried.values() for cell in cells], later)
    best = {}
    print("\n| chosen on other prompts | R | repeated | retrieval |\n|---|---|---|---|")
    for name, cells in tried.items():
        numbers = {c.radius: results[c].numbers for c in cells}
        best[name] = max(numbers, key=lambda r: (numbers[r]["repeated"], numbers[r]["retrieval"]))
        for radius, found in numbers.items():
            mark = " (chosen)" if radius == best[name] else ""
            print(f"| {name} | {radius}{mark} | {found['repeated']:.1%} | {found['retrieval']:.3f} |")
    print(flush=True)
    return best


def main_table(args: argparse.Namespace, lab: Lab) -> list[Any]:
    """Choose R on some prompts, report on others."""
    pairs = [(s, p) for s in range(args.seeds) for p in range(args.prompts)]
    choosing, reporting = CHOOSING[: args.heldout], REPORTING[: args.heldout]

    def row(name: str, radius: Radius, note: str = "") -> Row:
        label = f"{name}, R {radius}{note}"
        return Row(label, tuple(Cell(name, radius, s, p, reporting) for s, p in pairs))

    always: dict[str, tuple[Radius, ...]] = {"melbo": ("auto",), "random": NORMS}
    sure = {name: always.get(name, ()) for name in args.only}
    later = [c for name, radii in sure.items() for r in radii for c in row(name, r).cells]
    stand_in: Radius = "auto" if args.auto else 0.16  # of an R that is not chosen yet
    later += [c for name in args.only if name != "random" for c in row(name, stand_in).cells]
    choices = [] if args.auto else args.only
    best: dict[str, Radius] = {name: "auto" for name in args.only if name != "random"}
    if choices:
        best |= choose(choices, lab, choosing, later)
    rows = []
    for name in args.only:
        for radius in dict.fromkeys([*sure[name], *([best[name]] if name in best else [])]):
            notes = ["default"] if name == "melbo" and radius == "auto" else []
            notes += ["chosen"] if name in choices and radius == best[name] else []
            rows.append(row(name, radius, f" ({', '.join(notes)})" if notes else ""))
    results = run_cells(lab, [c for r in rows for c in r.cells])
    random = [r for r in rows if r.cells[0].method == "random"]

    def repeated(row: Row) -> float:
        return fmean(results[c].numbers["repeated"] for c in row.cells)

    chosen = next((r for r in random if "chosen" in r.name), None)
    against = chosen or max(random, key=repeated, default=None)  # not chosen: the best on these answers themselves
    return print_table("Traits that repeat", rows, results, against)


def study(args: argparse.Namespace, lab: Lab) -> list[Any]:
    """Repeated traits against steps, target tokens, layers and R."""
    pairs = [(s, p) for s in range(args.seeds) for p in range(args.prompts)]
    reporting = REPORTING[: args.heldout]

    def row(name: str, radius: Radius = STUDY_RADIUS, label: str = "", **changes: Any) -> Row:
        more = tuple(sorted(changes.items()))
        return Row(f"{name}{label}", tuple(Cell(name, radius, s, p, reporting, more) for s, p in pairs))

    def steps(name: str, n: int) -> Row:
        """The method's own number is left to it, so that the main table's cells are shared."""
        usual = default_steps(Cell(name, STUDY_RADIUS, 0, 0, reporting).config(args.vectors))
        return row(name, label=f", {n} steps", **({} if n == usual else {"steps": n}))

    def tokens(n: int) -> Row:
        return row(
            "melbo",
            label=f", last {n} tokens",
            **({} if n == DiscoveryConfig().target_tokens else {"target_tokens": n}),
        )

    blocks = lab.loaded.n_layers
    layers = [tuple(round(layer * blocks / LAYERS_OF) for layer in pair) for pair in LAYERS]
    both = ("melbo", "random")
    tables: dict[str, list[Row]] = {
        "steps": [steps(name, n) for name in ("melbo", "published") for n in args.steps] + [row("random", NORMS[0])],
        "tokens": [tokens(n) for n in args.targets],
        "layers": [row(name, source_layer=a, target_layer=b) for a, b in layers for name in both],
        "radius": [row(name, radius, f", R {radius}") for radius in RADII for name in both],
    }
    chosen = {name: [r for r in tables[name] if r.cells[0].method in args.only] for name in args.study}
    cells = [c for rows in chosen.values() for r in rows for c in r.cells]
    results = run_cells(lab, cells)
    found: list[Any] = []
    for name, rows in chosen.items():
        if rows:
            found += print_table(f"Repeated traits against {name}", rows, results, None)
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dtype", help="of the weights: float32 (default on a CPU), bfloat16")
    parser.add_argument("--vectors", type=int, help="default: 128")
    parser.add_argument("--seeds", type=int, help="default: 3; of --study 1")
    parser.add_argument("--prompts", type=int, choices=(1, 2, 3), help="training prompts; default: 3")
    parser.add_argument("--heldout", type=int, default=8, choices=range(2, 9), help="prompts that are answered")
    parser.add_argument("--tokens", type=int, default=32, help="of an answer")
    parser.add_argument("--only", nargs="+", choices=list(METHODS), default=list(METHODS), metavar="METHOD")
    parser.add_argument("--quick", action="store_true", help="32 vectors, one seed, one training prompt")
    parser.add_argument("--auto", action="store_true", help="every method at its default R, beside random's best norm")
    parser.add_argument("--steps", nargs="+", type=int, default=list(STEPS), help="that the study of steps tries")
    parser.add_argument("--targets", nargs="+", type=int, default=list(TOKENS), help="target tokens that a study tries")
    parser.add_argument("--study", nargs="*", choices=STUDIES, help=f"all, or some of: {' '.join(STUDIES)}")
    parser.add_argument("--out", type=Path, default=Path("build/real_model"), help="where the cells are kept")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.study = list(STUDIES) if args.study == [] else args.study
    args.only = [name for name in METHODS if name in args.only]
    args.vectors = args.vectors or (32 if args.quick else 128)
    args.seeds = args.seeds or (1 if args.quick or args.study else 3)
    args.prompts = args.prompts or (1 if args.quick else 3)
    try:
        lab = Lab(load_model(args.model, dtype=args.dtype), load_embedder(), args.out, args.vectors, args.tokens)
        table = study(args, lab) if args.study else main_table(args, lab)
    except MelboError as error:
        parser.exit(2, f"real_model.py: {error}\n")
    if args.json:
        args.json.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
