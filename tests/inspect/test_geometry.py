"""Geometry: against known matrices, and on models where the answer can be worked out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from melbo.__main__ import app
from melbo.bank.vector_bank import VectorBank
from melbo.errors import ConfigError, CorpusError
from melbo.inspect.geometry.difference_of_means import (
    Contrast,
    difference_of_means,
    load_contrasts,
    mean_activation,
)
from melbo.inspect.geometry.effects import effects
from melbo.inspect.geometry.similarity import Geometry, cluster, cosines, measure_geometry, participation_ratio, plot
from melbo.models.load import LoadedModel
from melbo.organism.corpus import MODES
from melbo.organism.inputs import organism_contrasts
from melbo.prompts import INNOCUOUS, REFUSED, chat, encode
from melbo.steering.hooks import capture, run_until_stop, steer

BANK = Path(__file__).parents[2] / "vectors" / "organism-bomb"
CONTRAST = Contrast("refused", tuple(tuple(chat(p)) for p in REFUSED), tuple(tuple(chat(p)) for p in INNOCUOUS))


@pytest.fixture(scope="module")
def geometry(tiny: LoadedModel, tiny_bank: VectorBank) -> Geometry:
    return measure_geometry(tiny, tiny_bank, [CONTRAST], n_random=4)


def test_participation_ratio_counts_dimensions() -> None:
    assert participation_ratio(torch.eye(6)) == pytest.approx(6)
    assert participation_ratio(torch.ones(6, 4)) == pytest.approx(1)
    assert participation_ratio(torch.eye(6)[[0, 0, 1, 1, 2, 2]]) == pytest.approx(3)
    assert participation_ratio(torch.eye(6)[:1] * 1e-20) == pytest.approx(1)


def test_clusters_join_what_points_the_same_way() -> None:
    base = torch.eye(8)[[0, 1, 1, 2, 1]] + 0.01
    assert cluster(cosines(base, base), 0.5) == (1, 0, 0, 2, 0)
    assert cluster(cosines(base, base), 0.9999) == (1, 0, 0, 2, 0)
    assert cluster(torch.eye(4), 0.5) == (0, 1, 2, 3)
    assert cluster(torch.ones(1, 1), 0.5) == (0,)


def test_the_tables_are_cosines_of_vectors_and_effects(
    tiny: LoadedModel, tiny_bank: VectorBank, geometry: Geometry
) -> None:
    made = effects(tiny, tiny_bank.vectors, tiny_bank.prompts, tiny_bank.layer, geometry.target_layer)
    for name, rows in (("vector", tiny_bank.vectors), ("effect", made), ("added", made - tiny_bank.vectors)):
        table = torch.tensor(getattr(geometry, f"{name}_cosines"))
        torch.testing.assert_close(table, cosines(rows, rows), atol=1e-3, rtol=1e-3)
    assert geometry.participation["vectors"] == pytest.approx(8, rel=1e-4)  # orthogonal, of equal length
    assert geometry.clusters == cluster(torch.tensor(geometry.added_cosines), 0.5)


def test_the_change_at_each_layer_is_what_steering_does(
    tiny: LoadedModel, tiny_bank: VectorBank, geometry: Geometry
) -> None:
    ids = encode(tiny.tokenizer, tiny_bank.prompts[0], 256)[None]
    layers = [c.layer for c in geometry.layers]
    assert layers == list(range(tiny_bank.layer + 1, 4))
    norms, aligned = torch.zeros(len(layers)), torch.zeros(len(layers))
    for vector in tiny_bank.vectors:
        states = []
        for added in (vector, vector * 0):
            with torch.no_grad(), steer(tiny, tiny_bank.layer, added), capture(tiny, layers) as found:
                run_until_stop(tiny, ids)
            states.append(torch.stack([found[layer][0, -1] for layer in layers]))
        change = states[0] - states[1]
        norms += change.norm(dim=1) / vector.norm() / 8
        aligned += torch.nn.functional.cosine_similarity(change, vector[None], dim=1) / 8
    assert [c.norm for c in geometry.layers] == pytest.approx(norms.tolist(), rel=1e-3)
    assert [c.cosine for c in geometry.layers] == pytest.approx(aligned.tolist(), abs=1e-3)


def test_a_difference_of_means_is_that(tiny: LoadedModel, tiny_bank: VectorBank, geometry: Geometry) -> None:
    sides = []
    for prompts in (CONTRAST.positive, CONTRAST.negative):
        rows = []
        for prompt in prompts:
            with torch.no_grad(), capture(tiny, [1]) as found:
                run_until_stop(tiny, encode(tiny.tokenizer, prompt, 256)[None])
            rows.append(found[1][0, -1])
        sides.append(torch.stack(rows).mean(dim=0))
    torch.testing.assert_close(difference_of_means(tiny, CONTRAST, 1), sides[0] - sides[1], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(mean_activation(tiny, CONTRAST.positive, 1, rows=3), sides[0], atol=1e-4, rtol=1e-3)
    assert geometry.overlaps[0].name == "refused" and len(geometry.overlaps[0].cosines) == 8
    index, cosine = geometry.overlaps[0].best
    assert abs(cosine) == max(map(abs, geometry.overlaps[0].cosines)) and 0 <= index < 8
    assert 0 < geometry.chance < 1


def test_geometry_survives_the_file(geometry: Geometry, tmp_path: Path) -> None:
    path = geometry.save(tmp_path / "geometry.json")
    assert Geometry.load(path) == geometry
    good = json.loads(path.read_text())
    for name, value in (("clusters", [0]), ("added_cosines", [[1.0]]), ("participation", {}), ("layers", [{}]),
                        ("format", "x"), ("model", None)):  # fmt: skip
        path.write_text(json.dumps({**good, name: value}))
        with pytest.raises(CorpusError):
            Geometry.load(path)


@pytest.mark.slow
def test_plots_are_written_for_print(geometry: Geometry, tmp_path: Path) -> None:
    assert plot(geometry, tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in plot(geometry, tmp_path / "a.svg").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a.svg"]
    with pytest.raises(ConfigError, match=r"\.png"):
        plot(geometry, tmp_path / "a.gif")


def test_bad_settings_are_refused(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    for changes in ({"n_random": 0}, {"threshold": 1.0}, {"threshold": float("nan")}):
        with pytest.raises(ConfigError):
            measure_geometry(tiny, tiny_bank, **changes)


def test_contrasts_are_read_from_json(tmp_path: Path) -> None:
    path = tmp_path / "contrasts.json"
    path.write_text(json.dumps({"a": {"positive": ["hi", [{"role": "user", "content": "x"}]], "negative": ["no"]}}))
    (found,) = load_contrasts(path)
    assert found.positive == (tuple(chat("hi")), ({"role": "user", "content": "x"},))
    bad: Any
    for bad in ({}, [], {"a": 1}, {"a": {"positive": [], "negative": ["x"]}}, {"a": {"positive": [1], "negative": []}}):
        path.write_text(json.dumps(bad))
        with pytest.raises(CorpusError):
            load_contrasts(path)
    with pytest.raises(CorpusError):
        load_contrasts(tmp_path / "none.json")


def test_the_organisms_contrasts_name_its_modes() -> None:
    found = organism_contrasts(2)
    assert tuple(c.name for c in found) == MODES and all(len(c.positive) == len(c.negative) == 2 for c in found)


@pytest.mark.slow
def test_the_command_measures_and_draws(tmp_path: Path) -> None:
    bank, out, image = tmp_path / "bank", tmp_path / "g.json", tmp_path / "g.svg"
    VectorBank.load(BANK).select([0, 1, 2]).save(bank)
    result = CliRunner().invoke(
        app, ["inspect", "geometry", str(bank), "--out", str(out), "--plot", str(image), "--contrasts", "organism"]
    )
    assert result.exit_code == 0, result.output
    assert "poem" in result.output and "vector 2 Poem" in result.output
    assert Geometry.load(out).layers[-1].layer == 7 and image.stat().st_size > 10_000
