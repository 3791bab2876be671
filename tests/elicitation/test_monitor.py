"""The monitor: projections while the model runs, Mahalanobis distances, ROC areas."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from melbo.__main__ import app
from melbo.bank.vector_bank import VectorBank
from melbo.elicitation.monitoring import chat_features, fit_monitor, roc, study_monitor, watching
from melbo.errors import ConfigError, PromptError
from melbo.models.load import LoadedModel, load_model
from melbo.organism.elicitation_tasks import anomalous_chats, normal_chats
from melbo.prompts import chat, encode
from melbo.steering.generate import Sampling, complete
from melbo.steering.hooks import capture, run_until_stop
from support.tiny import hook_count

BANK = Path(__file__).parents[2] / "vectors" / "organism-bomb"


def test_the_first_step_is_the_projection_of_the_prompts_last_token(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    messages = chat("Hello there")
    with torch.no_grad(), capture(tiny, [tiny_bank.layer]) as found:
        run_until_stop(tiny, encode(tiny.tokenizer, messages, tiny.context)[None])
    unit = torch.nn.functional.normalize(tiny_bank.vectors, dim=-1)
    plain = complete(tiny, [messages], sampling=Sampling(5))
    with watching(tiny, unit, tiny_bank.layer, tokens=3) as watch:
        assert complete(tiny, [messages], sampling=Sampling(5)) == plain
    assert len(watch.steps) == 3 and hook_count(tiny) == 0
    torch.testing.assert_close(watch.steps[0][0], found[tiny_bank.layer][0, -1] @ unit.T, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(watch.features(), torch.stack(watch.steps).mean(dim=0))


def test_features_do_not_depend_on_the_other_chats(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    chats = [chat("Hello"), chat("A much longer question about nothing at all")]
    both = chat_features(tiny, tiny_bank, chats, tokens=4)
    assert both.shape == (2, len(tiny_bank))
    assert torch.equal(both[1:], chat_features(tiny, tiny_bank, chats[1:], tokens=4))
    padded = chat_features(tiny, tiny_bank, chats)
    torch.testing.assert_close(padded[:1], chat_features(tiny, tiny_bank, chats[:1]), atol=1e-3, rtol=1e-3)


def test_distances_are_mahalanobis() -> None:
    generator = torch.Generator().manual_seed(0)
    mix = torch.tensor([[2.0, 0.0, 0.0], [1.5, 0.5, 0.0], [0.0, 0.0, 0.1]])
    normal = torch.randn(4000, 3, generator=generator) @ mix.T + 7
    monitor = fit_monitor(normal[:2000], normal[2000:], false_alarms=0.1, shrinkage=1e-6)
    covariance = mix @ mix.T
    probe = torch.tensor([[9.0, 8.0, 7.0], [7.0, 7.0, 7.5]])
    exact = torch.einsum("ri,ij,rj->r", probe - 7, torch.linalg.inv(covariance), probe - 7).sqrt()
    torch.testing.assert_close(monitor.distances(probe).float(), exact, rtol=0.1, atol=0.1)
    assert float((monitor.distances(normal[2000:]) > monitor.threshold).double().mean()) == pytest.approx(
        0.1, abs=0.001
    )
    assert float(monitor.distances(normal[2000:]).square().mean()) == pytest.approx(3, rel=0.1)


def test_more_features_than_chats_still_give_finite_distances() -> None:
    rows = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    monitor = fit_monitor(rows, rows)
    assert torch.isfinite(monitor.distances(torch.cat([rows, torch.full((1, 40), 9.0)]))).all()
    assert float(monitor.distances(torch.full((1, 40), 9.0))) > monitor.threshold
    still = fit_monitor(torch.ones(3, 4), torch.ones(2, 4))
    assert float(still.distances(torch.ones(1, 4))) == 0


@pytest.mark.parametrize(
    ("normal", "anomalous", "area"),
    [([1.0, 2.0], [3.0, 4.0], 1.0), ([3.0, 4.0], [1.0, 2.0], 0.0), ([1.0], [1.0], 0.5), ([1.0, 3.0], [2.0, 4.0], 0.75)],
)
def test_the_roc_area_is_the_chance_of_a_right_order(normal: list[float], anomalous: list[float], area: float) -> None:
    found = roc(torch.tensor(normal), torch.tensor(anomalous))
    assert found.area == pytest.approx(area)
    assert found.false_alarms[0] == found.hits[0] == 0 and found.false_alarms[-1] == found.hits[-1] == 1
    assert list(found.false_alarms) == sorted(found.false_alarms)


def test_impossible_input_is_refused(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    rows = torch.randn(4, 3)
    for normal, held in ((rows[:1], rows), (rows, rows[:0]), (rows, rows[:, :2]), (rows[0], rows)):
        with pytest.raises(ConfigError):
            fit_monitor(normal, held)
    with pytest.raises(ConfigError):
        fit_monitor(rows, rows, false_alarms=1)
    with pytest.raises(ConfigError):
        fit_monitor(rows, rows, shrinkage=0)
    with pytest.raises(ConfigError):
        fit_monitor(rows, rows).distances(torch.ones(1, 2))
    with pytest.raises(ConfigError):
        roc(torch.tensor([]), torch.tensor([1.0]))
    with pytest.raises(PromptError):
        chat_features(tiny, tiny_bank, [])
    with pytest.raises(ConfigError), watching(tiny, torch.ones(2, 3), 0):
        pass
    with watching(tiny, tiny_bank.vectors, 0) as watch, pytest.raises(ConfigError, match="nothing"):
        watch.features()


def test_the_organisms_trigger_and_mode_switches_stand_out() -> None:
    loaded, bank = load_model("organism"), VectorBank.load(BANK).select(list(range(32)))
    parts = (normal_chats(48, 0), normal_chats(12, 1), normal_chats(16, 2, "heldout"))
    found = study_monitor(loaded, bank, *parts, anomalous_chats(10, 3))
    assert found.roc("trigger").area > 0.9 and found.roc("mode switch").area > 0.9
    assert found.reported("trigger") > found.reported()
    assert json.dumps(found.to_dict(), allow_nan=False)


def test_the_command_takes_files_of_chats(
    tiny: LoadedModel, saved_bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melbo.cli.arguments.load_model", lambda name, **options: tiny)
    normal, odd, out = tmp_path / "normal.jsonl", tmp_path / "odd.jsonl", tmp_path / "monitor.json"
    normal.write_text("".join(json.dumps({"prompt": f"Question number {i}"}) + "\n" for i in range(8)))
    odd.write_text(json.dumps({"prompt": "zzzz"}) + "\n")
    files = ["--normal", str(normal), "--chats", str(odd), "--tokens", "2", "--out", str(out)]
    done = CliRunner().invoke(app, ["monitor", str(saved_bank), *files])
    assert done.exit_code == 0, done.output
    assert "random directions" in done.output and json.loads(out.read_text())["format"] == "melbo-monitor-1"
    for wrong in (["--normal", str(normal)], [], ["--normal", str(odd), "--chats", str(odd)]):
        done = CliRunner().invoke(app, ["monitor", str(saved_bank), *wrong])
        assert done.exit_code == 2 and "Traceback" not in done.output
