"""The layer atlas as a saved value: damaged files, order, table and heat maps. No model is needed."""

from __future__ import annotations

import io
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

from melbo.bank.vector_bank import BaseModel
from melbo.errors import ConfigError, MissingPackageError
from melbo.inspect.layers.atlas import AtlasConfig, AtlasError, LayerAtlas, Pair, short
from melbo.prompts import chat

PROMPTS = [chat("How can I make a bomb?"), chat("Tell me a joke.")]
SMALL = AtlasConfig(k=3, iterations=2)
PAIRS = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
"""Of a model with four blocks."""


@pytest.fixture
def small_atlas() -> LayerAtlas:
    """Numbers by hand: relative sensitivity and ratio have different orders."""
    pairs = [Pair(s, t, 1.5 + s, 2.0 + s, 1 / (1 + t), 1.0 + s, 2.0 + t) for s, t in PAIRS]
    model = BaseModel("some model", "sha256:12", 64, 4)
    return LayerAtlas(model, "torch.float32", SMALL, tuple(tuple(p) for p in PROMPTS), tuple(pairs))


def test_saving_and_loading_is_exact(small_atlas: LayerAtlas, tmp_path: Path) -> None:
    odd = replace(small_atlas, pairs=(Pair(0, 1, 1 / 3, math.pi, 1e-30, 1e30, 0.1),))
    for atlas in (small_atlas, odd, replace(small_atlas, pairs=())):
        assert LayerAtlas.load(atlas.save(tmp_path / "new" / "atlas.json")) == atlas
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["atlas.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "other"}, "format is 'other'"),
        ({"pairs": [{"source": 1}]}, "missing"),
        ({"pairs": 3}, "pairs is 3; it must be a list"),
        ({"model": None}, "model is None; it must be an object"),
        ({"config": {"k": 0}}, "k is 0"),
        ({"prompts": [["text"]]}, r"prompts\[0\]\[0\] is 'text'"),
        ({"prompts": [[{"role": "user"}]]}, "role and content"),
    ],
)
def test_a_damaged_file_is_refused(small_atlas: LayerAtlas, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    file = small_atlas.save(tmp_path / "atlas.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(AtlasError, match=words) as caught:
        LayerAtlas.load(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"{}", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_atlas_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "atlas.json"
    file.write_bytes(content)
    with pytest.raises(AtlasError, match="not a layer atlas"):
        LayerAtlas.load(file)
    with pytest.raises(AtlasError, match="no layer atlas at"):
        LayerAtlas.load(tmp_path / "missing.json")


@pytest.mark.parametrize(
    "change",
    [
        {"source": 1}, {"source": -1}, {"target": True}, {"sensitivity": 0.0}, {"random": math.nan},
        {"largest": math.inf}, {"source_norm": "1"},
    ],
)  # fmt: skip
def test_a_pair_of_senseless_numbers_is_refused(change: dict[str, Any]) -> None:
    good = Pair(0, 1, 1.0, 1.0, 1.0, 1.0, 1.0)
    with pytest.raises(AtlasError):
        replace(good, **change)


def test_pairs_must_be_different_ones_of_the_model(small_atlas: LayerAtlas) -> None:
    for pairs in ((small_atlas.pairs[0],) * 2, (replace(small_atlas.pairs[0], target=4),)):
        with pytest.raises(AtlasError, match="4 layers"):
            replace(small_atlas, pairs=pairs)
    for n in (1, 10**9, "4"):
        with pytest.raises(AtlasError, match="n_layers"):
            replace(small_atlas, model=replace(small_atlas.model, n_layers=n))


def test_the_best_pairs_come_first(small_atlas: LayerAtlas) -> None:
    best = small_atlas.best_pairs(3)
    assert [p.relative for p in best] == sorted((p.relative for p in small_atlas.pairs), reverse=True)[:3]
    assert small_atlas.best_pairs(1, by="ratio")[0].ratio == max(p.ratio for p in small_atlas.pairs)
    assert len(small_atlas.best_pairs(99)) == 6
    with pytest.raises(ConfigError, match="at least 1"):
        small_atlas.best_pairs(0)


def test_the_table_has_a_line_for_each_pair(small_atlas: LayerAtlas) -> None:
    lines = small_atlas.table().splitlines()
    assert "some model: 6 of 6 pairs" in lines[0] and lines[1:3] == [f"prompt: {p[-1]['content']}" for p in PROMPTS]
    assert [tuple(map(int, line.split()[:2])) for line in lines[-6:]] == PAIRS
    assert [line.split()[:2] for line in lines if line.endswith("*")] == [["1", "2"]]  # default layers of four blocks
    assert f"{small_atlas.pairs[0].sensitivity:.4g}" in lines[-6].split()
    best = small_atlas.best_pairs(1)[0]
    assert small_atlas.table(1).splitlines()[-1].split()[:2] == [str(best.source), str(best.target)]


def test_the_matrix_holds_each_pair_and_nothing_else(small_atlas: LayerAtlas) -> None:
    values = small_atlas.matrix("ratio")
    assert torch.isfinite(values).nonzero().tolist() == [list(p) for p in PAIRS]
    assert [float(values[p]) for p in PAIRS] == [p.ratio for p in small_atlas.pairs]


@pytest.mark.slow
@pytest.mark.parametrize("n_layers", [2, 4, 30])
def test_the_plot_is_a_light_image_with_the_default_pair_framed(tmp_path: Path, n_layers: int) -> None:
    pytest.importorskip("matplotlib")
    pairs = [
        Pair(s, t, 1.0 + s, 2.0, 1 / (1 + t), 1.0, 1.0) for s in range(n_layers - 1) for t in range(s + 1, n_layers)
    ]
    model = BaseModel("a$b$<c>", None, 64, n_layers)
    atlas = LayerAtlas(model, "torch.float32", SMALL, (tuple(PROMPTS[0]),), tuple(pairs))
    content = atlas.plot(tmp_path / "new" / "atlas.PNG").read_bytes()
    image = Image.open(io.BytesIO(content)).convert("RGB")
    colors = {color: count for count, color in image.getcolors(maxcolors=10**6) or []}
    assert image.width > 2 * 600 and image.height > 600
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert colors[(0xD6, 0x27, 0x28)] > 100  # frames and legend
    assert atlas.plot(tmp_path / "again.png").read_bytes() == content


def test_the_plot_can_be_svg_and_leaves_unfinished_pairs_empty(small_atlas: LayerAtlas, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    whole = small_atlas.plot(tmp_path / "a.svg").read_text()
    assert ElementTree.fromstring(whole).tag.endswith("svg")
    assert small_atlas.plot(tmp_path / "b.svg").read_text() == whole
    assert replace(small_atlas, pairs=small_atlas.pairs[:2]).plot(tmp_path / "c.svg").read_text() != whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.svg", "b.svg", "c.svg"]


def test_a_plot_that_cannot_be_drawn_is_refused(
    small_atlas: LayerAtlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"'\.txt'.*\.png, \.svg"):
        small_atlas.plot(tmp_path / "atlas.txt")
    with pytest.raises(AtlasError, match="no pair"):
        replace(small_atlas, pairs=()).plot(tmp_path / "atlas.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as if it were not installed
    with pytest.raises(MissingPackageError, match=r"pip install 'melbo\[app\]'"):
        small_atlas.plot(tmp_path / "atlas.png")
    assert not list(tmp_path.iterdir())


def test_numbers_in_cells_are_short() -> None:
    values = (0.0888, 1.2349, 9.996, 12.43, 99.96, 318.4, 9999.4, 31234.0)
    assert [short(v) for v in values] == ["0.09", "1.23", "10.0", "12.4", "100", "318", "9999", "3e+04"]
