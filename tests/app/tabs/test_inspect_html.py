"""What the Inspect tab shows: stored results, maps, plots. Hostile text stays text."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from melbo.app.context import DEFAULT_KEY, BankCache
from melbo.app.tabs.inspect.findings import Findings
from melbo.app.tabs.inspect.handlers import Rows
from melbo.app.tabs.inspect.html import (
    descriptions_html,
    examples_html,
    features_html,
    geometry_html,
    lens_html,
    own_text_html,
)
from melbo.app.widgets.heat_map import MOST, NEGATIVE, POSITIVE, heat_map, png
from melbo.bank.vector_bank import VectorBank
from melbo.inspect.geometry.effects import LayerChange
from melbo.inspect.lens.logit_lens import Token
from melbo.inspect.lens.patchscope import Descriptions
from melbo.inspect.lens.token_activation import TextActivations, TokenActivation
from melbo.inspect.max_activating.report import Example
from melbo.inspect.sae.report import FeatureNote
from melbo.inspect.stored import neighbours_of
from support.banks import noted
from support.fuzz_values import a_bank, a_geometry, a_lens, a_report, an_sae_report, write_results

EVIL = "<img src=x onerror=alert(1)>&\"'"


@pytest.fixture
def stored(tmp_path: Path) -> VectorBank:
    """A bank of three vectors with all four files; two of them know of vector 0 only."""
    bank = a_bank()
    write_results(bank, bank.save(tmp_path / "bank"))
    return VectorBank.load(tmp_path / "bank")


def test_what_is_stored_shows_at_once(stored: VectorBank) -> None:
    found = Findings(BankCache(stored))
    examples, features, lens, geometry = found.sections(DEFAULT_KEY, 0)
    assert "<mark> two</mark>" in examples and "3.6" in examples and "pirate 1" in examples
    assert "a <mark>b</mark> c" in features and "explain 50%" in features and "random 0.25" in features
    assert "yes <small>+2.5" in lens and "2.0 on average, 3.0 at most" in lens
    assert geometry.count("<img") == 4 and "kind" in geometry and "bank, mean" in geometry
    assert all("Stored beside the bank." in section for section in (examples, features, lens, geometry))
    assert found.missing(DEFAULT_KEY, 0) == (False, False, "This vector, layer by layer")


def test_what_is_not_stored_says_how_to_make_it(stored: VectorBank, tiny_bank: VectorBank) -> None:
    examples, features, lens, geometry = Findings(BankCache(stored)).sections(DEFAULT_KEY, 1)
    assert all('class="empty"' in section for section in (examples, features, lens)) and "<img" in geometry
    nothing = Findings(BankCache(tiny_bank)).sections(DEFAULT_KEY, 0)
    assert all('class="empty"' in section for section in nothing)
    assert "melbo inspect activating" in nothing[0] and "melbo inspect sae" in nothing[1]
    changed = replace(stored, vectors=stored.vectors.flip(0))
    assert all('class="empty"' in s for s in Findings(BankCache(changed)).sections(DEFAULT_KEY, 0)), "another bank's"


def test_hostile_text_is_escaped_everywhere(tiny_bank: VectorBank) -> None:
    report = a_report()
    example = Example(2.5, 0.5, 7, (EVIL, EVIL, EVIL), (0.1, 2.5, 0.0), 1, EVIL)
    directions = tuple(replace(d, examples=(example,) * 5, label=EVIL) for d in report.directions)
    hostile = replace(report, corpus=EVIL, directions=directions, control=directions, skipped={EVIL: 1})
    note = FeatureNote(EVIL, 3.5, 0.125, (f"a >>{EVIL}<< c", EVIL))
    sae = replace(an_sae_report(""), corpus=EVIL, features={7: note, 9: note})
    sae = replace(sae, sae=replace(sae.sae, source=EVIL))
    near = neighbours_of(sae, 0)
    assert near is not None
    lens = tuple(
        replace(r, rows=tuple(replace(row, label=EVIL, promoted=(Token(1, EVIL, 9.0),)) for row in r.rows))
        for r in a_lens("")
    )
    bank = noted(a_bank(), *[{"label": EVIL}] * 3)
    geometry = a_geometry("")
    geometry = replace(geometry, labels=(EVIL,) * 3, overlaps=tuple(replace(o, name=EVIL) for o in geometry.overlaps))
    read = TextActivations("effect", 3, (TokenActivation(EVIL, 3.0, 1.0), TokenActivation(EVIL, 0.0, -2.0)), 9, True)
    said = Descriptions(EVIL, 1, 1.0, (EVIL,), EVIL, EVIL)
    parts = [
        examples_html(hostile, 0, EVIL), features_html(near, EVIL), lens_html(lens, EVIL),
        geometry_html(bank, 0, geometry, None, EVIL), own_text_html(read, 1.0, False), descriptions_html(said, 1.0, 9),
    ]  # fmt: skip
    for part in parts:
        assert "&lt;img src=x" in part and "<img src=x" not in part and "onerror" not in re.sub(r"&[^<]*", "", part)


def test_examples_stand_beside_the_random_level() -> None:
    report = a_report()
    weak = tuple(replace(d, examples=tuple(replace(e, value=0.7) for e in d.examples)) for d in report.control)
    shown = examples_html(replace(report, control=weak), 0, "")
    assert "best 3.6, random directions 1.0 to 1.0" in shown and "a random direction's most frequent: 1.0" in shown
    assert shown.count("<svg") == 2 and "1 lines not JSON were skipped" in shown
    none = examples_html(replace(report, control=()), 0, "")
    assert "random" not in none and 'class="level"' not in none


def test_features_without_notes_and_below_zero_are_plain() -> None:
    report = replace(an_sae_report(""), features={}, corpus="")
    found = neighbours_of(report, 2)
    assert found is not None and neighbours_of(report, 1) is None
    turned = replace(found, changed=tuple(replace(f, weight=-f.weight) for f in found.changed))
    shown = features_html(turned, "")
    assert "<details>" not in shown and shown.count('class="below"') == 2 and "described" not in shown


def test_the_image_holds_the_cosines() -> None:
    image = Image.open(io.BytesIO(png([[1.0, -1.0], [0.0, 0.25]]))).convert("RGBA")
    assert image.size == (2, 2)
    assert image.getpixel((0, 0)) == (*POSITIVE, 255) and image.getpixel((1, 0)) == (*NEGATIVE, 255)
    clear, weak = image.getpixel((0, 1)), image.getpixel((1, 1))
    assert isinstance(clear, tuple) and isinstance(weak, tuple) and clear[3] == 0 and 0 < weak[3] < 255


def test_a_map_follows_the_order_and_marks_the_vector() -> None:
    table = [[1.0, 0.5, -0.25], [0.5, 1.0, 0.0], [-0.25, 0.0, 1.0]]
    shown = heat_map("<T>", table, [2, 0, 1], 0)
    assert "top:33.33%;height:33.33%" in shown and "<T>" not in shown
    assert "3 vectors, from -0.25 to 0.50, 0.25 on average in size" in shown
    many = [[float(i == j) for j in range(MOST + 5)] for i in range(MOST + 5)]
    assert f"{MOST} vectors" in heat_map("many", many, range(MOST + 5), MOST + 2) and "one vector" in heat_map(
        "one", [[1.0]], [0], 0
    )
    assert '<i class="row"' not in heat_map("many", many, range(MOST + 5), MOST + 2)


def test_geometry_shows_this_vector_once_its_layers_are_known() -> None:
    layers = (LayerChange(2, 1.0, -0.5, 0.9, 0.25), LayerChange(3, 2.0, 0.5, 0.9, 0.25))
    found = replace(a_geometry(""), layers=layers)
    rows = Rows(((1.0, 4.0), (1.5, 2.0), (2.0, 3.0)), ((0.5, 0.25), (0.5, 0.5), (0.5, 0.75)))
    shown = geometry_html(a_bank(), 0, found, rows, "")
    assert "vector 0 from 1 at 2 to 4 at 3" in shown and "bank, median from 1.5 at 2 to 3 at 3" in shown
    assert "bank, mean" not in shown and "random, mean from 0.9 at 2" in shown
    plain = geometry_html(a_bank(), 0, found, None, "")
    assert ">-0.5</text>" in plain, "the axis reaches down to what is below zero"
    assert "mode 2" in plain and "its cluster holds 1 others" in plain
