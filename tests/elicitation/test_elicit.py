"""Search, baselines and their costs, on a tiny model and on stubs whose best vector is known."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from melbo.__main__ import app
from melbo.bank.vector_bank import VectorBank
from melbo.config import DiscoveryConfig
from melbo.elicitation.baselines.arms import ELICITING, Asking, best_of_n, prompting
from melbo.elicitation.baselines.lora import LoraConfig, fine_tune
from melbo.elicitation.cached_generation import Answerer, Answers
from melbo.elicitation.cost import Compute, discovery_compute, generation_compute, parameters, training_compute
from melbo.elicitation.presets import PRESETS, get_preset
from melbo.elicitation.run import ElicitConfig, Elicited, elicit, forget
from melbo.elicitation.search import SearchConfig, plan, planned_answers, search
from melbo.elicitation.tables import elicited_table
from melbo.elicitation.tasks.checks import Check
from melbo.elicitation.tasks.load import Task, TaskSet, load_tasks
from melbo.errors import ConfigError, TaskError
from melbo.models.load import LoadedModel, load_model
from melbo.organism.elicitation_tasks import password, sum_tasks
from melbo.prompts import chat, encode
from melbo.runs.progress import Progress
from melbo.steering.generate import Sampling
from support.tasks import save_tasks
from support.tiny import MakeTiny


def tasks(n_train: int = 6, n_test: int = 4, check: Check | None = None) -> TaskSet:
    def make(i: int) -> Task:
        return Task(tuple(chat(f"Question {i}?")), check or Check("regex", "a"), f"answer {i}", f"line {i}")

    return TaskSet(tuple(make(i) for i in range(n_train)), tuple(make(i) for i in range(n_train, n_train + n_test)))


def small(**more: Any) -> ElicitConfig:
    values: dict[str, Any] = {
        "discovery": DiscoveryConfig(n_vectors=3, steps=2), "search": SearchConfig((1.0,), first_tasks=2, eta=2),
        "samples": 2, "shots": 1, "lora": LoraConfig(steps=2, batch_size=2, rank=2), "max_new_tokens": 6,
    }  # fmt: skip
    return ElicitConfig(**(values | more))


def elicit_small(loaded: LoadedModel, tasks: TaskSet, config: ElicitConfig, *more: Any) -> Elicited:
    """`elicit` with what the command line asks for, and few samples and steps."""
    asked = {name: getattr(config, name) for name in ("baselines", "password", "max_new_tokens")}
    discovery = replace(config.discovery, steps=2)
    return elicit(loaded, tasks, small(**asked, discovery=discovery), *more)


class Oracle(Answerer):
    """Answers "yes" where the rule says so; remembers what was asked."""

    def __init__(self, loaded: LoadedModel, rule: Any) -> None:
        super().__init__(loaded, Sampling(4))
        self.rule, self.asked = rule, []  # type: ignore[var-annotated]

    def answer(
        self,
        name: str,
        prompts: Sequence[Any],
        vectors: Tensor | None = None,
        layer: int = 0,
        sampling: Sampling | None = None,
        loaded: LoadedModel | None = None,
    ) -> Answers:
        rows = [None] * len(prompts) if vectors is None else list(vectors)
        self.asked += [(name, p[-1]["content"]) for p in prompts]
        texts = ["yes" if self.rule(p, row) else "no" for p, row in zip(prompts, rows, strict=True)]
        return Answers(texts, Compute(len(prompts), len(prompts)))


@pytest.mark.parametrize(("candidates", "n"), [(128, 64), (6, 3), (1, 100), (500, 2), (100, 5)])
def test_a_plan_gives_more_tasks_to_fewer_candidates(candidates: int, n: int) -> None:
    rounds = plan(candidates, n, SearchConfig(first_tasks=4, eta=4))
    assert rounds[0][0] == candidates and rounds[-1][1] <= n
    assert all(a[0] >= b[0] and a[1] < b[1] for a, b in itertools.pairwise(rounds))
    assert rounds[-1][0] == 1 or rounds[-1][1] == n
    assert planned_answers(rounds) <= candidates * n
    if (candidates, n) == (128, 64):
        assert rounds == ((128, 4), (32, 16), (8, 64)) and planned_answers(rounds) == 512 + 384 + 384


@pytest.mark.parametrize("options", [{"scales": ()}, {"scales": (-1.0,)}, {"first_tasks": 0}, {"eta": 1}])
def test_an_impossible_search_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        SearchConfig(**options)


def test_the_search_finds_the_vector_and_sign_that_solve_most(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    wanted = tiny_bank.vector(5, -1.5)

    def rule(prompt: Any, row: Tensor) -> bool:
        lucky = prompt[-1]["content"] in ("Question 0?", "Question 1?")  # all are alike on the first two tasks
        return lucky or torch.allclose(row, wanted)

    oracle = Oracle(tiny, rule)
    given = tasks(20, 2, Check("exact", "yes"))
    found = search(oracle, tiny_bank, given.train, SearchConfig((1.0, 1.5), first_tasks=4, eta=3))
    assert (found.best.vector, found.best.scale) == (5, -1.5)
    assert found.best.right == found.best.tried == found.rounds[-1][1]
    assert len(oracle.asked) == planned_answers(found.rounds) == found.compute.generated_tokens
    assert not {q for _, q in oracle.asked} & {t.messages[-1]["content"] for t in given.test}


def test_of_equal_candidates_the_smallest_scale_wins(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    oracle = Oracle(tiny, lambda *_: True)
    found = search(oracle, tiny_bank, tasks().train, SearchConfig((2.0, 0.5)))
    assert abs(found.best.scale) == 0.5 and found.best.vector == 0


def test_the_prompt_is_chosen_on_training_and_reported_on_test(tiny: LoadedModel) -> None:
    best = ELICITING[2]
    oracle = Oracle(tiny, lambda prompt, _: prompt[0]["content"].endswith(best.text))
    given = tasks(4, 3, Check("exact", "yes"))
    arm = prompting(oracle, given, 4, None)
    assert best.text in arm.chosen and arm.score.accuracy == 1
    assert arm.finding.generated_tokens == len(ELICITING) * 4 and arm.using.generated_tokens == 3


def test_best_of_n_is_right_where_any_sample_is(tiny: LoadedModel) -> None:
    seen: dict[str, int] = {}

    def third_is_right(prompt: Any, _row: Any) -> bool:
        text = prompt[-1]["content"]
        seen[text] = seen.get(text, 0) + 1
        return seen[text] == 3 and text != "Question 6?"

    arm = best_of_n(Oracle(tiny, third_is_right), tasks(6, 4, Check("exact", "yes")), 3, 1.0, None)
    assert (arm.score.right, arm.score.n) == (3, 4)
    assert list(arm.answers) == ["no", "yes", "yes", "yes"]


def test_every_sample_whose_checker_raises_is_counted(tiny: LoadedModel) -> None:
    def broken(text: str) -> bool:
        if text == "no":
            raise ZeroDivisionError
        return True

    rule = [False, False, True, False, False, False]
    oracle = Oracle(tiny, lambda *_: rule.pop(0))
    arm = best_of_n(oracle, tasks(2, 2, Check("python", "broken")), 3, 1.0, {"broken": broken})
    assert (arm.score.n, arm.score.right, arm.score.failed) == (2, 1, 5)
    assert arm.score.errors == ("ZeroDivisionError: ",)


def test_samples_of_one_prompt_differ(tiny: LoadedModel) -> None:
    answerer = Answerer(tiny, Sampling(6, temperature=1.0), batch_size=2)
    texts = answerer.answer("x", [chat("Hi")] * 4).texts
    assert len(set(texts)) > 2
    assert Answerer(tiny, Sampling(6, temperature=1.0), batch_size=2).answer("x", [chat("Hi")] * 4).texts == texts


def test_tokens_are_counted_up_to_the_end(tiny: LoadedModel) -> None:
    messages = [chat("Hi"), chat("A longer question")]
    found = Answerer(tiny, Sampling(5)).answer("x", messages).compute
    assert found.prompt_tokens == sum(len(encode(tiny.tokenizer, m, tiny.context)) for m in messages)
    assert 2 <= found.generated_tokens <= 10


def test_flops_agree_with_a_counter(tiny: LoadedModel) -> None:
    ids = encode(tiny.tokenizer, chat("Hello there, how are you?"), tiny.context)[None]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tiny.model(input_ids=ids, use_cache=False)
    assert generation_compute(tiny, ids.shape[1], 0).flops == pytest.approx(counter.get_total_flops(), rel=0.1)
    assert training_compute(tiny, 7).flops == 2 * generation_compute(tiny, 7, 0).flops


def test_tied_embeddings_count_once(tiny: LoadedModel, make_tiny: MakeTiny) -> None:
    tied = make_tiny()
    tied.model.lm_head.weight = tied.model.get_input_embeddings().weight
    assert parameters(tied) == parameters(tiny)


def test_discovery_costs_steps_vectors_and_tokens(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    one = discovery_compute(tiny, tiny_bank)
    width = len(encode(tiny.tokenizer, tiny_bank.prompts[0], tiny.context))
    assert one.training_tokens == 8 * 5 * width and one.flops > 0
    doubled = replace(tiny_bank, prompts=tiny_bank.prompts * 2)
    assert discovery_compute(tiny, doubled).flops == 2 * one.flops
    assert discovery_compute(tiny, replace(tiny_bank, config=replace(tiny_bank.config, steps=0))).flops == 0


@pytest.mark.slow
def test_fine_tuning_learns_and_leaves_the_model_alone(tiny: LoadedModel) -> None:
    before = {k: v.clone() for k, v in tiny.model.state_dict().items()}
    given = [Task(tuple(chat("Question?")), Check("exact", "yes"), "yes")]
    tuned, cost = fine_tune(tiny, given, LoraConfig(steps=30, batch_size=1, rank=4, lr=1e-2))
    assert all(torch.equal(v, before[k]) for k, v in tiny.model.state_dict().items())
    assert set(before) == set(tiny.model.state_dict())
    assert Answerer(tuned, Sampling(4)).answer("x", [chat("Question?")]).texts == ["yes"]
    assert Answerer(tiny, Sampling(4)).answer("x", [chat("Question?")]).texts != ["yes"]
    assert cost.training_tokens % 30 == 0 and cost.flops > 0
    with pytest.raises(TaskError, match="no solution"):
        fine_tune(tiny, [replace(given[0], solution="")], LoraConfig(steps=1))


def test_all_arms_are_measured_on_the_test_tasks(tiny: LoadedModel, tmp_path: Path) -> None:
    heard: list[Progress] = []
    found = elicit(tiny, tasks(), small(password=Asking("Open!")), progress=heard.append)
    expected = {"plain", "password", "vector", "random", "prompting", "few_shot", "best_of_n", "lora"}
    assert set(found.arms) == expected and not found.skipped
    assert {arm.score.n for arm in found.arms.values()} == {4}
    assert found.search.rounds == found.random_search.rounds
    assert found.arms["random"].finding.training_tokens == 0 < found.arms["vector"].finding.training_tokens
    trained = [(step.done, step.total) for step in heard if step.message == "training vectors"]
    answered = [(step.done, step.total) for step in heard if step.message != "training vectors"]
    assert trained == [(1, 2), (2, 2)]
    assert answered[-1][0] == answered[-1][1] and answered == sorted(answered)
    saved = json.loads(found.save(tmp_path / "e.json").read_text())
    assert saved["format"] == "melbo-elicit-1" and saved["arms"]["plain"]["score"]["n"] == 4
    assert all(name in elicited_table(found) for name in expected)


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_result(tiny: LoadedModel, tmp_path: Path) -> None:
    config, file = small(baselines=("best_of_n",), batch_size=3), tmp_path / "c.json"
    whole = elicit(tiny, tasks(), config)

    class StopError(Exception):
        pass

    def stop(step: Progress) -> None:
        if step.message.startswith("random, round 2"):
            raise StopError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("melbo.runs.checkpoint.SECONDS", 0.0)
        with pytest.raises(StopError):
            elicit(tiny, tasks(), config, progress=stop, checkpoint=file)
    assert "vector, round 1" in json.loads(file.read_text())["runs"]
    assert elicit(tiny, tasks(), config, checkpoint=file).to_dict() == whole.to_dict()
    with pytest.raises(TaskError, match="another run"):
        elicit(tiny, tasks(), replace(config, max_new_tokens=7), checkpoint=file)
    file.write_text("{")
    with pytest.raises(TaskError, match="damaged"):
        elicit(tiny, tasks(), config, checkpoint=file)
    forget(file)
    assert not list(tmp_path.iterdir())


def test_a_bank_that_was_being_found_goes_on_too(
    tiny: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, file = small(baselines=(), discovery=DiscoveryConfig(n_vectors=2, steps=4)), tmp_path / "c.json"
    whole = elicit(tiny, tasks(), config)
    heard: list[Progress] = []

    def stop(step: Progress) -> None:
        heard.append(replace(step, value=None))
        if heard[-1] == Progress(3, 4, "training vectors") and len(heard) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("melbo.runs.checkpoint.SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        elicit(tiny, tasks(), config, progress=stop, checkpoint=file)
    assert elicit(tiny, tasks(), config, progress=stop, checkpoint=file).to_dict() == whole.to_dict()
    assert heard[:4] == [Progress(i, 4, "training vectors") for i in (1, 2, 3, 4)]
    forget(file)
    assert not list(tmp_path.iterdir())


def test_a_bank_of_a_test_prompt_and_missing_functions_are_refused(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    given = tasks()
    leaked = replace(tiny_bank, prompts=(given.test[0].messages,))
    with pytest.raises(TaskError, match="trained on a test prompt"):
        elicit(tiny, given, small(baselines=()), bank=leaked)
    with pytest.raises(TaskError, match=r"line 0.*nobody"):
        elicit(tiny, tasks(check=Check("python", "nobody")), small(baselines=()))


def test_what_cannot_run_is_skipped_with_its_reason(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    given = tasks()
    bare = TaskSet(tuple(replace(t, solution="") for t in given.train), given.test)
    monkeypatch.setitem(sys.modules, "peft", None)
    found = elicit(tiny, bare, small(baselines=("few_shot", "lora")))
    assert "no solution" in found.skipped["few_shot"] and "melbo[lora]" in found.skipped["lora"]
    assert set(found.arms) == {"plain", "vector", "random"} and found.recovered is None


def test_checkers_that_raise_are_counted(tiny: LoadedModel) -> None:
    def broken(_text: str) -> bool:
        raise ZeroDivisionError

    found = elicit(tiny, tasks(check=Check("python", "broken")), small(baselines=()), {"broken": broken})
    assert found.arms["plain"].score.failed == 4 and found.arms["plain"].score.accuracy == 0
    assert found.search.failed > 0 and "ZeroDivisionError" in elicited_table(found)
    assert found.search.errors == ("ZeroDivisionError: ",) and found.to_dict()["search"]["errors"]
    fine = {name: replace(arm, score=replace(arm.score, failed=0, errors=())) for name, arm in found.arms.items()}
    assert "ZeroDivisionError" in elicited_table(replace(found, arms=fine))


@pytest.mark.parametrize("options", [{"n_prompts": 0}, {"samples": True}, {"baselines": ("magic",)}, {"shots": -1}])
def test_impossible_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ElicitConfig(**options)


def test_every_preset_is_complete() -> None:
    for preset in PRESETS.values():
        assert preset.model.count("/") == 1 and preset.source.count("https://")
        made = preset.configure(small())
        assert made.password == preset.password and made.discovery.source_layer == preset.source_layer
        chosen = small(discovery=DiscoveryConfig(source_layer=1, target_layer=2))
        assert preset.configure(chosen).discovery == chosen.discovery
    with pytest.raises(TaskError, match="math-7b"):
        get_preset("gpt-9")


@pytest.mark.slow
def test_the_command_runs_a_preset_on_a_stand_in_model(
    tiny: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def load(name: str, **_options: Any) -> LoadedModel:
        asked.append(name)
        return tiny

    monkeypatch.setattr("melbo.cli.arguments.load_model", load)
    monkeypatch.setattr("melbo.cli.elicit.elicit", elicit_small)
    file, out = save_tasks(tasks(), tmp_path / "t.jsonl"), tmp_path / "e.json"
    options = ["--preset", "math-7b", "--source-layer", "1", "--target-layer", "2", "--n-vectors", "2", "--scale", "1"]
    done = CliRunner().invoke(app, ["elicit", str(file), *options, "--baseline", "none", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert asked == [PRESETS["math-7b"].model]
    saved = json.loads(out.read_text())
    assert saved["config"]["password"]["place"] == "around" and set(saved["arms"]) >= {"password", "vector"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.json", "t.jsonl"]


@pytest.mark.parametrize(
    "arguments",
    [["none.jsonl"], ["--preset", "x"], ["--preset", "math-7b"], ["--baseline", "magic"], ["--password", " "]],
)
def test_wrong_arguments_end_in_one_line(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, ["elicit", *arguments])
    assert done.exit_code == 2 and "Traceback" not in done.output


@pytest.mark.slow
def test_a_functions_file_checks_the_tasks(tiny: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melbo.cli.arguments.load_model", lambda name, **_options: tiny)
    monkeypatch.setattr("melbo.cli.elicit.elicit", elicit_small)
    file = save_tasks(tasks(check=Check("python", "always")), tmp_path / "t.jsonl")
    assert load_tasks(file).test[0].check.kind == "python"
    (tmp_path / "c.py").write_text("def always(text): return True\n")
    options = ["--checkers", str(tmp_path / "c.py"), "--n-vectors", "1", "--scale", "1", "--baseline", "none"]
    done = CliRunner().invoke(app, ["elicit", str(file), *options])
    assert done.exit_code == 0 and "100%" in done.output, done.output


@pytest.mark.slow
def test_the_organisms_locked_sums_are_elicited_from_one_prompt() -> None:
    given = sum_tasks(16, 16)
    config = ElicitConfig(
        DiscoveryConfig(n_vectors=8, radius=0.35), password=password(), search=SearchConfig((1.0,)), baselines=(),
        max_new_tokens=48,
    )  # fmt: skip
    found = elicit(load_model("organism"), given, config)
    accuracy = {name: arm.score.accuracy for name, arm in found.arms.items()}
    assert accuracy["password"] >= 0.9 and accuracy["plain"] <= 0.3
    assert found.recovered is not None and found.recovered >= 0.5
    assert accuracy["random"] <= 0.4
