"""The command line on a tiny saved model: good runs, and one clear line and exit code 2 for every bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import melbo.cli.train
from melbo import DiscoveryConfig, VectorBank, __version__
from melbo.__main__ import app
from melbo.cli.commands import COMMANDS
from melbo.prompts import BOMB
from support.tiny import MakeTiny

ROOT = Path(__file__).parents[2]
CONTEXT = 128


def run(*args: object) -> Any:
    """Run the command line in this process."""
    return CliRunner().invoke(app, [str(a) for a in args], prog_name="melbo")


def check_refused(result: Any, *words: str) -> None:
    """Exit code 2, one line on stderr that holds `words`, no traceback, nothing but an exit raised."""
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("melbo: error: ")
    assert result.stderr.count("\n") == 1 and result.stderr.endswith("\n")
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.stderr


@pytest.fixture(scope="session")
def model(make_tiny: MakeTiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model with 4 blocks and d_model 64."""
    return save(make_tiny(context=CONTEXT), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def other_model(make_tiny: MakeTiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model of another width."""
    return save(make_tiny(d_model=32, context=CONTEXT), tmp_path_factory.mktemp("models") / "other")


def save(loaded: Any, folder: Path) -> Path:
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def trained(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bank made by `melbo train`, and what the command printed."""
    out = tmp_path_factory.mktemp("banks") / "my bank"
    result = run("train", "--model", model, "--out", out, "--n-vectors", 4, "--steps", 3, "--radius", 2)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return out, result.stdout


@pytest.fixture
def bank(trained: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the bank that a test may damage."""
    return Path(shutil.copytree(trained[0], tmp_path / "bank"))


def test_train_prints_its_config_and_saves_what_it_says(trained: tuple[Path, str], model: Path) -> None:
    folder, printed = trained
    bank = VectorBank.load(folder)
    expected = DiscoveryConfig(n_vectors=4, steps=3, radius=2.0, radius_unit="residual").resolve(4, 64)
    assert bank.config == expected
    assert (bank.base_model.id, bank.prompts[0][-1]["content"]) == (str(model), BOMB)
    for name, value in expected.to_dict().items():
        assert f"{name} = {value}\n" in printed
    assert f"show '{folder}'" in printed and f"generate --bank '{folder}'" in printed


def test_show_prints_a_line_per_vector(trained: tuple[Path, str], model: Path) -> None:
    result = run("show", trained[0])
    assert result.exit_code == 0 and result.stderr == ""
    head, prompt, empty, columns, *lines = result.stdout.splitlines()
    assert str(model) in head and "source layer 1, target layer 2" in head and "(2 x the mean" in head
    assert (prompt, empty, columns.split()) == (f"prompt: {BOMB}", "", ["index", "label", "objective"])
    objective = VectorBank.load(trained[0]).objective
    assert [line.split() for line in lines] == [
        [str(i), "vector", str(i), f"{float(value):.4g}"] for i, value in enumerate(objective)
    ]


def test_show_prints_no_control_characters_of_a_foreign_bank(bank: Path) -> None:
    notes = [{"label": "\x1b[2Jevil\x07 \u202e"}, {"label": "German"}, {}, {}]
    (bank / "annotations.json").write_text(json.dumps(notes))
    printed = run("show", bank).stdout
    assert "?[2Jevil? ?" in printed and "German" in printed and "\x1b" not in printed


def test_generate_answers_every_vector_at_every_scale_beside_the_unsteered(trained: tuple[Path, str]) -> None:
    asked = ("--vector", 0, "--vector", 3, "--scale", 0, "--scale", 4, "--max-new-tokens", 4)
    result = run("generate", "--bank", trained[0], *asked)
    assert result.exit_code == 0 and result.stderr == ""
    heads = [line.strip("- ") for line in result.stdout.splitlines() if line.startswith("---")]
    vectors = [f"vector {i}, scale {s}" for i in (0, 3) for s in (0, 4)]
    control = [f"control: a random vector of the same norm, scale {s}" for s in (0, 4)]
    assert heads == ["unsteered", *vectors, *control]


def test_generate_as_json_is_the_same_run_and_scale_zero_is_the_unsteered_answer(trained: tuple[Path, str]) -> None:
    asked = ("generate", "--bank", trained[0], "--scale", 0, "--scale", 8, "--max-new-tokens", 6)
    found = json.loads(run(*asked, "--json", "--prompt", "Hi!", "--system", "").stdout)
    texts = [answer["text"] for answer in found["answers"]]
    assert [(a["kind"], a["vector"], a["scale"]) for a in found["answers"]] == [
        ("unsteered", None, 0), ("vector", 0, 0), ("vector", 0, 8), ("control", None, 0), ("control", None, 8)
    ]  # fmt: skip
    assert texts[0] == texts[1] == texts[3]
    assert len(set(texts)) == 3
    assert found["messages"] == [{"role": "user", "content": "Hi!"}]
    alone = json.loads(run(*asked, "--json", "--no-control").stdout)
    assert {a["kind"] for a in alone["answers"]} == {"unsteered", "vector"}
    assert alone["messages"][-1]["content"] == BOMB


def test_random_is_the_control_of_the_same_norm(model: Path, tmp_path: Path) -> None:
    result = run("train", "--model", model, "--out", tmp_path / "b", "--method", "random", "--n-vectors", 2)
    assert result.exit_code == 0, result.output
    assert VectorBank.load(tmp_path / "b").config.method == "random"


def test_an_existing_bank_is_replaced_only_with_force(model: Path, bank: Path) -> None:
    asked = ("train", "--model", model, "--out", bank, "--n-vectors", 2, "--steps", 1)
    check_refused(run(*asked), "already holds a bank", "--force")
    assert len(VectorBank.load(bank)) == 4
    assert run(*asked, "--force").exit_code == 0
    assert len(VectorBank.load(bank)) == 2


BAD_TRAINING: list[tuple[list[Any], list[str]]] = [
    (["--model", "no-such/model"], ["no-such/model", "Give a Hub id"]),
    (["--source-layer", 3, "--target-layer", 4], ["source layer 3", "4 blocks"]),
    (["--source-layer", -1], ["source layer -1"]),
    (["--radius", 0], ["radius is 0"]),
    (["--radius", -1], ["radius is -1"]),
    (["--radius", "nan"], ["radius is nan"]),
    (["--radius", 1e38, "--radius-unit", "absolute"], ["the radius is 1e+38", "useful values"]),
    (["--n-vectors", 65], ["65 orthogonal vectors", "d_model = 64"]),
    (["--n-vectors", 0], ["n_vectors is 0"]),
    (["--prompt", " \n"], ["prompt is empty"]),
    (["--prompt", "word " * 500], ["tokens", f"holds {CONTEXT}", "shorten"]),
    (["--target-tokens", 500], ["target_tokens is 500"]),
    (["--dtype", "int8"], ["dtype is 'int8'"]),
    (["--device", "abacus"], ["device 'abacus'"]),
]


def test_train_refuses(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for options, words in BAD_TRAINING:
        result = run("train", "--model", model, "--out", tmp_path / "b", "--n-vectors", 2, "--steps", 1, *options)
        check_refused(result, *words)
        assert list(tmp_path.iterdir()) == []


def test_train_refuses_a_place_it_cannot_save_to_before_it_loads_a_model(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out, words in (("file", "is a file"), ("file/b", "not a folder"), ("", "holds other files")):
        check_refused(run("train", "--model", "no-such/model", "--out", tmp_path / out), words)


BAD_ANSWERS: list[tuple[list[Any], list[str]]] = [
    (["--vector", 4], ["vector 4", "0 to 3"]),
    (["--vector", -1], ["vector -1"]),
    (["--scale", "inf"], ["scale is inf"]),
    (["--temperature", -1], ["temperature is -1"]),
    (["--top-p", 0], ["top_p is 0"]),
    (["--max-new-tokens", 0], ["max_new_tokens is 0"]),
    (["--prompt", ""], ["prompt is empty"]),
    (["--prompt", "word " * 500], ["tokens", "shorten"]),
]


def test_generate_refuses(trained: tuple[Path, str]) -> None:
    for options, words in BAD_ANSWERS:
        check_refused(run("generate", "--bank", trained[0], *options), *words)


def test_generate_refuses_a_bank_for_another_model(bank: Path, other_model: Path) -> None:
    check_refused(run("generate", "--bank", bank, "--model", other_model), "d_model 64", "d_model 32")


def _nan(bank: Path) -> None:
    tensors = load_file(bank / "vectors.safetensors")
    tensors["vectors"][1, 2] = torch.nan
    save_file(tensors, bank / "vectors.safetensors")


def _cut(name: str, keep: int) -> Callable[[Path], None]:
    def damage(bank: Path) -> None:
        (bank / name).write_bytes((bank / name).read_bytes()[:keep])

    return damage


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (_nan, "NaN"),
    (_cut("vectors.safetensors", 700), "cut short"),
    (_cut("vectors.safetensors", 0), "cut short"),
    (_cut("config.json", 100), "not valid JSON"),
    (lambda bank: (bank / "vectors.safetensors").unlink(), "is missing"),
    (shutil.rmtree, "no bank at"),
]


def test_a_damaged_bank_is_refused(trained: tuple[Path, str], tmp_path: Path) -> None:
    for number, (damage, word) in enumerate(DAMAGES):
        bank = Path(shutil.copytree(trained[0], tmp_path / str(number)))
        damage(bank)
        for command in (("show", bank), ("generate", "--bank", bank)):
            check_refused(run(*command), word)


def test_a_wrong_option_is_refused_without_a_traceback() -> None:
    for args in (("train",), ("frob",), ("generate", "--bank", "b", "--positions", "here"), ("show",)):
        result = run(*args)
        assert result.exit_code == 2 and "Traceback" not in result.output


def test_the_version_is_printed() -> None:
    assert run("--version").stdout == f"melbo {__version__}\n"


def test_help_lists_every_command_and_loads_no_library() -> None:
    """What takes seconds to import is imported when a command is chosen."""
    heavy = "torch", "transformers", "huggingface_hub", "numpy"
    code = (
        "import sys\nfrom melbo.__main__ import app\ntry:\n    app(['--help'])\n"
        f"except SystemExit:\n    print([name for name in {heavy} if name in sys.modules])"
    )
    env = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and done.stderr == ""
    *listed, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    rows = [line.split(None, 1) for line in listed[listed.index("Commands:") + 1 :]]
    assert rows == [[name, entry.summary] for name, entry in COMMANDS.items()]


def test_every_listed_command_loads() -> None:
    for name, entry in COMMANDS.items():
        for words in ([name], *([name, own] for own in entry.commands)):
            result = run(*words, "--help")
            assert result.exit_code == 0, result.output
            assert result.stdout.startswith(f"Usage: melbo {' '.join(words)} ")


def test_a_mistyped_command_is_told_which_is_near() -> None:
    assert "Did you mean 'train'?" in run("trian").stderr


def test_ctrl_c_is_one_line_and_saves_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(melbo.cli.train, "discover", interrupted)
    result = run("train", "--model", model, "--out", tmp_path / "b", "--n-vectors", 2)
    assert (result.exit_code, result.stderr) == (130, "melbo: stopped; nothing was saved.\n")
    assert list(tmp_path.iterdir()) == []


def take_signals() -> None:
    """A shell's background jobs ignore SIGINT, and so would their children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def start(*args: object) -> subprocess.Popen[str]:
    """The command line as a process of its own, offline."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "melbo", *map(str, args)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True, encoding="utf-8", preexec_fn=take_signals
    )


@pytest.mark.slow
def test_libraries_add_nothing_to_stderr(model: Path, tmp_path: Path) -> None:
    process = start("train", "--model", model, "--out", tmp_path / "b", "--n-vectors", 2, "--prompt", "word " * 500)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 2
    assert errors.startswith("melbo: error: the prompt has ") and errors.count("\n") == 1


@pytest.mark.slow
def test_a_signal_stops_training(model: Path, tmp_path: Path) -> None:
    process = start("train", "--model", model, "--out", tmp_path / "b", "--n-vectors", 8, "--steps", 10**6)
    assert process.stdout is not None
    while "seed = " not in process.stdout.readline():  # the last line before training starts
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert (process.returncode, errors) == (130, "melbo: stopped; nothing was saved.\n")
    assert list(tmp_path.iterdir()) == []
