"""Whatever can go on after a stop: with the same inputs it ends the same, and with one changed it never uses what the
old ones left.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from melbo.annotation.annotate import annotate
from melbo.bank.adapter_config import AdapterConfig
from melbo.bank.vector_bank import VectorBank
from melbo.config import DiscoveryConfig
from melbo.discovery.adapters import discover_adapters
from melbo.discovery.discover import discover
from melbo.elicitation.backdoors import find_backdoors
from melbo.elicitation.run import ElicitConfig, elicit
from melbo.elicitation.search import SearchConfig
from melbo.elicitation.tasks.checks import Check
from melbo.elicitation.tasks.load import Task, TaskSet
from melbo.errors import ConfigError, MelboError
from melbo.inspect.layers.atlas import AtlasConfig
from melbo.inspect.layers.measure import layer_atlas
from melbo.inspect.max_activating.corpus_reader import Corpus, Document
from melbo.inspect.max_activating.find import find_activating
from melbo.inspect.max_activating.report import ActivatingConfig
from melbo.inspect.sae.train import SaeConfig, train_sae
from melbo.measure.coherence import CoherenceScale
from melbo.models.load import LoadedModel
from melbo.organism.training.loop import Trainer
from melbo.prompts import BOMB, chat
from melbo.radius_sweep.config import SweepConfig
from melbo.radius_sweep.sweep import run_sweep
from melbo.reports.audit import run as audit_run
from melbo.reports.audit.config import AuditConfig
from melbo.reports.audit.result_cache import Outcome, Store
from melbo.reports.replication.presets import StudyConfig
from melbo.reports.replication.run import Study
from melbo.runs.digest import value_digest
from melbo.runs.progress import OnProgress, Progress
from melbo.steering.generate import Sampling
from support.letters import Letters
from support.tiny import MakeTiny

SCALE = CoherenceScale(1.0, 100.0, "made up")
TWO = [chat(BOMB), chat("Tell me a joke.")]
LINES = tuple(f"Document number {i} of a small corpus." for i in range(12))
Inputs = dict[str, Any]


class Stop(Exception):
    """What the progress of a test raises."""


class OtherLetters(Letters):
    """The same embedder under another name."""

    name = "other letters"


@dataclass(frozen=True)
class Case:
    """A function that can go on."""

    run: Callable[[Inputs, Path | None, OnProgress | None], Any]
    inputs: Inputs
    changes: Inputs
    """By input, another value of it."""
    stop_at: int = 2
    """Call of progress that raises."""


def corpus(lines: tuple[str, ...]) -> Corpus:
    return Corpus("lines", lambda: iter([Document(line) for line in lines]))


def tasks(turn: bool = False, value: str = "a") -> TaskSet:
    made = [Task(tuple(chat(f"Question {i}?")), Check("regex", value), f"answer {i}", f"line {i}") for i in range(6)]
    return TaskSet(tuple(reversed(made[:4])) if turn else tuple(made[:4]), tuple(made[4:]))


def as_values(found: Any) -> Any:
    """A result in a form that can be compared."""
    if isinstance(found, VectorBank):
        tensors = [found.vectors, found.objective, found.output_directions]
        return [[t.tolist() for t in tensors], found.annotations, found.details]
    return found


@pytest.fixture
def cases(tiny: LoadedModel, make_tiny: MakeTiny, tiny_bank: VectorBank) -> dict[str, Case]:
    double = make_tiny()
    models = {
        "weights": {"loaded": make_tiny(seed=1)},
        "dtype": {"loaded": replace(double, model=double.model.double())},
    }
    turned = {"order of prompts": {"prompts": TWO[::-1]}}
    bank = replace(tiny_bank.select([0, 1, 2]), annotations=())
    order = {"order of vectors": {"bank": replace(bank.select([1, 0, 2]), annotations=(), source=bank.source)}}
    base: Inputs = {"loaded": tiny, "prompts": TWO}
    config = DiscoveryConfig(n_vectors=2, steps=3)
    decoder = torch.randn(20, tiny.d_model, generator=torch.Generator().manual_seed(0))
    sae = replace(config, method="sae-basis", sparsity=2)
    alike = replace(config, method="more-like")
    grid: Inputs = {**base, "bank": bank, "scales": (0.5, 1.0), "tokens": 6}
    grid_changes = {**models, **turned, **order, "scales": {"scales": (0.5, 2.0)}, "tokens": {"tokens": 5}}
    sweep = SweepConfig(config, (0.5, 1.0), n_vectors=2, sampling=Sampling(max_new_tokens=5))
    seen = ActivatingConfig(site="vector", where="all", k=2, context=4, n_random=2, sample=20, batch_tokens=128)
    rows = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    training = SaeConfig(d_sae=16, k=2, steps=4, batch=16)
    elicited = ElicitConfig(
        search=SearchConfig((1.0,), first_tasks=2, eta=2),
        baselines=("few_shot",),
        shots=1,
        max_new_tokens=5,
        batch_size=2,
    )

    def found(i: Inputs, file: Path | None, tell: OnProgress | None) -> Any:
        return discover(i["loaded"], i["config"], i["prompts"], tell, file, i.get("reference"), i.get("decoder"))

    def annotated(i: Inputs, file: Path | None, tell: OnProgress | None) -> Any:
        return annotate(
            i["loaded"], i["bank"], i["prompts"], i["scales"], Letters(), tell, file, n_control=2,
            max_new_tokens=i["tokens"], coherence_scale=SCALE,
        )  # fmt: skip

    def backdoors(i: Inputs, file: Path | None, tell: OnProgress | None) -> Any:
        return find_backdoors(i["loaded"], i["bank"], i["prompts"], [], i["scales"], i["tokens"], SCALE, tell, file)

    def activating(i: Inputs, file: Path | None, tell: OnProgress | None) -> Any:
        return find_activating(i["loaded"], tiny_bank, corpus(i["lines"]), i["config"], tell, file, i["numbers"])

    def eliciting(i: Inputs, file: Path | None, tell: OnProgress | None) -> Any:
        return elicit(i["loaded"], i["tasks"], i["config"], None, i["bank"], tell, file).to_dict()

    def swept(i: Inputs, file: Path | None, tell: OnProgress | None) -> Any:
        return run_sweep(i["loaded"], i["config"], i["prompts"], i["embedder"], tell, file)

    def trained(i: Inputs, file: Path | None, tell: OnProgress | None) -> Any:
        return train_sae(i["rows"], i["layer"], "m", i["config"], tell, file).decoder.tolist()

    def adapted(i: Inputs, file: Path | None, tell: OnProgress | None) -> Any:
        made = discover_adapters(i["loaded"], i["config"], i["prompts"], tell, file)
        return [made.a.tolist(), made.b.tolist()]

    def atlas(i: Inputs, file: Path | None, tell: OnProgress | None) -> Any:
        return layer_atlas(i["loaded"], i["prompts"], i["config"], tell, file)

    return {
        "discover": Case(
            found, {**base, "config": config}, {**models, **turned, "seed": {"config": replace(config, seed=1)}}
        ),
        "sae-basis": Case(found, {**base, "config": sae, "decoder": decoder}, {"SAE": {"decoder": decoder.flip(0)}}),
        "more-like": Case(
            found, {**base, "config": alike, "reference": bank.vector(0)}, {"vector": {"reference": bank.vector(1)}}
        ),
        "adapters": Case(
            adapted, {**base, "config": AdapterConfig(n_adapters=2, steps=3)},
            {**models, **turned, "seed": {"config": AdapterConfig(n_adapters=2, steps=3, seed=1)}},
        ),
        "annotate": Case(annotated, grid, grid_changes, 4),
        "backdoors": Case(backdoors, grid, grid_changes, 4),
        "activating": Case(
            activating, {"loaded": tiny, "lines": LINES, "config": seen, "numbers": [0, 1]},
            {
                **models, "order of vectors": {"numbers": [1, 0]}, "seed": {"config": replace(seen, seed=1)},
                "start of the corpus": {"lines": ("Document number 9 of a small corpus.", *LINES[1:])},
                "order of the corpus": {"lines": (*LINES[:4], LINES[5], LINES[4], *LINES[6:])},
            },
            3,
        ),
        "elicit": Case(
            eliciting, {"loaded": tiny, "tasks": tasks(), "bank": bank, "config": elicited},
            {
                **models, **order, "order of prompts": {"tasks": tasks(turn=True)},
                "checks": {"tasks": tasks(value="e")},
                "tokens": {"config": replace(elicited, max_new_tokens=6)},
            },
            9,
        ),
        "sweep": Case(
            swept, {**base, "config": sweep, "embedder": Letters()},
            {
                **models, **turned, "embedder": {"embedder": OtherLetters()},
                "scales": {"config": replace(sweep, radii=(0.5, 2.0))},
                "tokens": {"config": replace(sweep, sampling=Sampling(max_new_tokens=4))},
                "seed": {"config": replace(sweep, base=replace(config, seed=1))},
            },
        ),
        "atlas": Case(
            atlas, {**base, "config": AtlasConfig(k=2, iterations=1)},
            {**models, **turned, "seed": {"config": AtlasConfig(k=2, iterations=1, seed=1)}},
        ),
        "SAE": Case(
            trained, {"rows": rows, "layer": 1, "config": training},
            {
                "order of activations": {"rows": rows.flip(0)}, "layer": {"layer": 2},
                "seed": {"config": replace(training, seed=1)},
            },
        ),
    }  # fmt: skip


def stop_at(call: int) -> OnProgress:
    calls: list[Progress] = []

    def tell(step: Progress) -> None:
        calls.append(step)
        if len(calls) == call:
            raise Stop

    return tell


@pytest.mark.slow
@pytest.mark.usefixtures("no_hook_stays")
def test_the_same_inputs_go_on_and_one_other_never_uses_the_checkpoint(
    cases: dict[str, Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melbo.runs.checkpoint.SECONDS", 0.0)
    monkeypatch.setattr("melbo.radius_sweep.sweep.calibrate_coherence", lambda *_, **__: SCALE)
    monkeypatch.setattr("melbo.inspect.max_activating.passages.CHUNK", 2)
    monkeypatch.setattr("melbo.annotation.measured_answers.BATCH", 2)
    for name, case in cases.items():
        whole = as_values(case.run(case.inputs, None, None))
        left = tmp_path / name / "left"
        left.mkdir(parents=True)
        with pytest.raises(Stop):
            case.run(case.inputs, left / "run", stop_at(case.stop_at))
        assert (left / "run").exists(), f"{name} left no checkpoint"
        for changed, other in {"nothing": {}, **case.changes}.items():
            folder = shutil.copytree(left, tmp_path / name / changed)
            inputs = {**case.inputs, **other}
            try:
                found = as_values(case.run(inputs, folder / "run", None))
            except MelboError as error:
                refused = "is of another run (" in str(error)
            else:
                refused = False
            if changed == "nothing":
                assert not refused and found == whole, f"{name} did not go on to the same result"
            elif not refused:
                expected = as_values(case.run(inputs, None, None))
                assert found == expected, f"{name}, {changed}: the old checkpoint was used"


def test_a_study_is_of_its_model_bank_settings_and_embedder(
    tiny: LoadedModel, make_tiny: MakeTiny, tiny_bank: VectorBank, tmp_path: Path
) -> None:
    config = StudyConfig(DiscoveryConfig(n_vectors=3, steps=2), radii=(0.5, 1.0), scales=(1.0, 2.0), candidates=2)
    first: Inputs = {"loaded": tiny, "config": config, "bank": tiny_bank, "embedder": Letters()}
    double = make_tiny()
    changes: Inputs = {
        "weights": {"loaded": make_tiny(seed=1)}, "dtype": {"loaded": replace(double, model=double.model.double())},
        "order of vectors": {"bank": tiny_bank.select([1, 0, *range(2, len(tiny_bank))])},
        "annotations": {"bank": replace(tiny_bank, annotations=tiny_bank.annotations[::-1])},
        "tokens": {"config": replace(config, max_new_tokens=5)},
        "scales": {"config": replace(config, scales=(2.0, 1.0))},
        "embedder": {"embedder": OtherLetters()},
    }  # fmt: skip

    def study(i: Inputs) -> Study:
        return Study(i["loaded"], i["config"], tmp_path, i["bank"], i["embedder"])

    study(first)
    study(first)
    for changed, other in changes.items():
        with pytest.raises(ConfigError, match="holds another study"):
            pytest.fail(f"{changed}: {study({**first, **other})}")


def test_every_part_of_an_audit_is_of_all_that_it_depends_on(
    tiny: LoadedModel, make_tiny: MakeTiny, tiny_bank: VectorBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key of each part, with everything as it was and with one thing changed; nothing is computed."""
    keys: dict[str, str] = {}

    def note(_self: Store, name: str, title: str, key: Inputs, *_: Any, **__: Any) -> Outcome:
        keys[name] = value_digest(key)
        return Outcome(name, title, "done") if name.startswith("bank") else Outcome(name, title, "failed")

    monkeypatch.setattr(Store, "run", note)
    monkeypatch.setattr(audit_run, "write_audit", lambda *_: None)
    config = AuditConfig(n_vectors=3, steps=2, radii=(0.5, 1.0), scales=(1.0,), n_prompts=3, max_new_tokens=5)
    first: Inputs = {
        "loaded": tiny, "config": config, "tasks": tasks(), "functions": {"f": lambda text: "a" in text},
        "corpus": corpus(LINES), "embedder": Letters(), "bank": replace(tiny_bank, annotations=()),
    }  # fmt: skip

    def parts(i: Inputs) -> dict[str, str]:
        keys.clear()
        shutil.rmtree(tmp_path / "banks", ignore_errors=True)
        i["bank"].save(tmp_path / "banks" / "A")
        given = (i["config"], i["tasks"], i["functions"], i["corpus"], i["embedder"])
        audit_run.run_audit(i["loaded"], tmp_path, *given)
        return dict(keys)

    before = parts(first)
    everything = set(before)
    of_bank = {"behaviours-A", "backdoors-A", "refusals-A", "lens-A", "corpus-A"}
    assert everything == {"sweep", "bank-A", "tasks", *of_bank} and parts(first) == before
    for changed, other, parts_of in (
        ("weights", {"loaded": make_tiny(seed=1)}, everything),
        ("order of vectors", {"bank": replace(tiny_bank.select([1, 0, *range(2, 8)]), annotations=())}, of_bank),
        ("tokens", {"config": replace(config, max_new_tokens=6)}, everything - {"bank-A"}),
        ("scales", {"config": replace(config, scales=(2.0,))}, of_bank),
        ("seed", {"config": replace(config, seed=1)}, everything),
        ("corpus", {"corpus": corpus(LINES[::-1])}, {"corpus-A"}),
        ("order of prompts", {"tasks": tasks(turn=True)}, {"tasks"}),
        ("functions", {"functions": {"g": lambda text: "a" in text}}, {"tasks"}),
        ("embedder", {"embedder": OtherLetters()}, {"sweep", "behaviours-A"}),
    ):
        after = parts({**first, **other})
        assert {name for name in before if after.get(name) != before[name]} >= parts_of, changed


def test_a_part_of_an_audit_whose_key_changed_is_done_again(tmp_path: Path) -> None:
    calls: list[int] = []

    def work(_checkpoint: Path) -> Inputs:
        calls.append(1)
        return {"calls": len(calls)}

    for key, value in (([1, 2], 1), ([1, 2], 1), ([2, 1], 2)):
        assert Store(tmp_path, lambda: False).run("p", "P", {"vectors": key}, work).value == {"calls": value}


def test_training_goes_on_from_its_own_weights_and_settings_only(make_tiny: MakeTiny, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Settings:
        steps: int = 2
        seed: int = 0
        threads: int = 1
        lr: float = 0.1

    def trainer(seed: int = 0, config: Settings = Settings(), **more: Any) -> Trainer:
        return Trainer(make_tiny(seed=seed).model.requires_grad_(True), config, 0.1, tmp_path, **more)

    def step(_: int) -> dict[str, float]:
        sum(p.square().sum() for p in first.model.parameters()).backward()  # type: ignore[union-attr]
        return {}

    first = trainer(mix={"a": 1})
    first.run(step, lambda _: 0.1, every=2)
    again = trainer(mix={"a": 1})
    assert again.start == 2 and asdict(again.config) == asdict(first.config)
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), first.model.parameters(), strict=True))
    others: tuple[Inputs, ...] = ({"seed": 1, "mix": {"a": 1}}, {"mix": {"a": 2}}, {"config": Settings(lr=0.2)})
    for other in others:
        with pytest.raises(ConfigError, match="other settings"):
            trainer(**other)
