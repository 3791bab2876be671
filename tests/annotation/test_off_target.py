"""What vectors do to prompts that they should leave alone."""

from __future__ import annotations

import pytest
import torch

from melbo.annotation import add_side_effects
from melbo.annotation.add_side_effects import SAMPLING, off_target
from melbo.errors import ConfigError
from melbo.measure.likelihood import first_token_kl
from melbo.models.load import LoadedModel
from melbo.prompts import chat
from melbo.runs.progress import Progress
from melbo.steering.generate import complete

PROMPTS = [chat("Hi"), chat("Where is it?")]


@pytest.mark.slow
@pytest.mark.usefixtures("no_hook_stays")
def test_every_vector_is_compared_on_every_prompt(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(add_side_effects, "ROWS", 4)
    sizes = torch.tensor([[0.0], [2], [20]])
    vectors = torch.randn(3, tiny.d_model, generator=torch.Generator().manual_seed(0)) * sizes
    calls: list[Progress] = []
    found = off_target(tiny, vectors, 1, PROMPTS, calls.append)
    assert calls == [Progress(2, 3), Progress(3, 3)]
    unsteered = complete(tiny, PROMPTS, sampling=SAMPLING)
    for vector, (changed, kl) in zip(vectors, found, strict=True):
        rows = vector.expand(2, -1)
        answers = complete(tiny, PROMPTS, rows, 1, SAMPLING)
        assert changed == sum(a != b for a, b in zip(answers, unsteered, strict=True)) / 2
        assert kl == pytest.approx(float(first_token_kl(tiny, PROMPTS, rows, 1).mean()), rel=1e-3, abs=1e-6)
    assert found[0] == (0.0, 0.0)
    assert found[2][0] == 1.0 and found[2][1] > found[1][1] > 0


def test_a_vector_of_another_width_is_refused(tiny: LoadedModel) -> None:
    with pytest.raises(ConfigError):
        off_target(tiny, torch.zeros(1, 8), 1, PROMPTS)


def test_it_can_be_cancelled(tiny: LoadedModel) -> None:
    def stop(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        off_target(tiny, torch.zeros(2, tiny.d_model), 1, PROMPTS, stop)
