"""Small values of every kind that is saved: a bank, adapters, a sweep, an atlas, an SAE, results beside a bank."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from melbo.bank.adapter_bank import AdapterBank
from melbo.bank.adapter_config import AdapterConfig
from melbo.bank.annotation import read_annotation
from melbo.bank.result_file import ACTIVATING, GEOMETRY, LENS, SAE
from melbo.bank.vector_bank import BaseModel, VectorBank
from melbo.config import DiscoveryConfig
from melbo.inspect.geometry.effects import LayerChange
from melbo.inspect.geometry.similarity import SHAPES, Geometry, Overlap
from melbo.inspect.layers.atlas import AtlasConfig, LayerAtlas, Pair
from melbo.inspect.lens.logit_lens import Lens, LensReport, Token, save_lens
from melbo.inspect.max_activating.report import ActivatingConfig, ActivatingReport, Direction, Example
from melbo.inspect.max_activating.top_examples import BINS
from melbo.inspect.sae.compare import Parts
from melbo.inspect.sae.dictionary import Sae, SaeSpec
from melbo.inspect.sae.report import FeatureNote, SaeReport
from melbo.measure.coherence import CoherenceScale
from melbo.radius_sweep.config import SweepConfig
from melbo.radius_sweep.result import Arm, Sweep, SweepRow
from melbo.runs.digest import content_digest
from melbo.steering.generate import Sampling

N, D = 3, 8
BASE = BaseModel("org/tiny", "a" * 40, D, 4)
PROMPTS = (({"role": "system", "content": "Be brief."}, {"role": "user", "content": "How? é中"}),)
_DRAW = torch.Generator().manual_seed(0)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_DRAW)


def unit(tensor: Tensor, radius: float, dim: int | tuple[int, ...] = -1) -> Tensor:
    return tensor * (radius / tensor.norm(dim=dim, keepdim=True))


def a_bank() -> VectorBank:
    example = {"prompt": "How?", "scale": 1.0, "text": "Arr!", "unsteered": "No."}
    entries = ({"label": f"mode {i}", "note": "what", "tags": ["dud"], "scale": -1.5, "scale_ranges": [[-2.0, -1.0]],
                "preset": f"P{i}", "examples": [example], "metrics": {"coherence": 8.5, "scale": -1.5,
                "control": {"coherence": 9.0}}, "unsteered": "No.", "auto": {"label": "m", "tags": []}}
               for i in range(N))  # fmt: skip
    notes = tuple(map(read_annotation, entries))
    config = DiscoveryConfig(n_vectors=N, steps=5).resolve(4, D)
    return VectorBank(
        unit(draw(N, D), 2.5), draw(N).abs(), unit(draw(N, D), 1.0), draw(N), config=config, base_model=BASE,
        radius=2.5, mean_residual_norm=3.5, prompts=PROMPTS, versions={"torch": "2.0"},
        created="2026-01-01T00:00:00+00:00", annotations=notes, details={"calibration": [1.0, 2.0]},
    )  # fmt: skip


def an_adapter_bank() -> AdapterBank:
    config = AdapterConfig(n_adapters=2, first_layer=0, last_layer=1, target_layer=3, steps=4).resolve(4, D)
    a, b = unit(draw(2, 2, 6), 1.0), unit(draw(2, 2, D), 1.25, (1, 2))
    return AdapterBank(
        a, b, draw(2), draw(2), config=config, base_model=BASE, radius=1.25, modules=("layers.0.o", "layers.1.o"),
        fan_in_fan_out=False, prompts=PROMPTS, versions={"torch": "2.0"}, created="now",
    )  # fmt: skip


def a_sweep() -> Sweep:
    arm = Arm(1.5, 0.5, 0.5, 2.0, 6.5, (5.0, 8.0), 0.5, 0.0, 0.25, 0.5, {"en": 2}, (("One.", "Two. é"),), {"pirate": 1},
              ("pirate",))  # fmt: skip
    config = SweepConfig(DiscoveryConfig(steps=3), (0.5, 1.0), n_vectors=2, sampling=Sampling(8)).resolve(4, D)
    rows = tuple(SweepRow(r, 3 * r, arm, replace(arm, modes=None, planted=None)) for r in config.radii)
    return Sweep(config, BASE, "torch.float32", PROMPTS, "letters", CoherenceScale(1.0, 9.0, "fixed"), 3.0, ("No.",),
                 8.0, None, {"torch": "2.0"}, rows)  # fmt: skip


def a_report(bank: str = "0" * 64) -> ActivatingReport:
    """`bank`, here and below: the digest of the bank's vectors."""
    example = Example(2.5, 0.5, 7, ("One", " two", " é"), (0.1, 2.5, 0.0), 1, "pirate")
    made = tuple(Direction(0, "mode 0", sign, 0.7, tuple(range(BINS)), (example,)) for sign in (1, -1))
    return ActivatingReport(bank, BASE, ActivatingConfig(k=1), 3, "organism (train)", 9, 90, 9, {"lines not JSON": 1},
                            1.5, 2.5, made, made)  # fmt: skip


def an_atlas() -> LayerAtlas:
    pairs = tuple(Pair(s, t, 1.5, 2.0, 0.5, 3.0, 4.0) for s, t in ((0, 1), (0, 2), (1, 3)))
    return LayerAtlas(BASE, "torch.float32", AtlasConfig(), PROMPTS, pairs)


def an_sae() -> Sae:
    spec = SaeSpec(D, 12, "jumprelu", 0, 2, "org/tiny")
    return Sae(spec, draw(12, D), draw(12), draw(12, D), draw(D), True, draw(12).abs())


def a_lens(bank: str) -> tuple[LensReport, ...]:
    tokens = (Token(5, " yes", 2.5), Token(7, "é", 1.5))
    rows = tuple(Lens(0, "mode 0", sign, tokens, tokens[::-1]) for sign in (1, -1))
    return tuple(LensReport(bank, BASE, site, rows, 2.0, 3.0) for site in ("effect", "vector"))


def a_geometry(bank: str) -> Geometry:
    table = tuple(tuple(float(i == j) for j in range(N)) for i in range(N))
    return Geometry(
        bank, BASE, 1, 3, ("a", "b", "c"), table, table, table, (0, 0, 1), dict.fromkeys(SHAPES, 2.5),
        (Overlap("kind", (0.5, -0.25, 0.0)),), 0.25, (LayerChange(2, 1.0, 0.5, 0.9, 0.25),),
    )  # fmt: skip


def an_sae_report(bank: str) -> SaeReport:
    parts = Parts((7, 9), (0.5, 0.25), (0.25, 0.5))
    both = ((parts, parts),) * 4
    notes = {7: FeatureNote("pirate", 3.5, 0.125, ("a >>b<< c",)), 9: FeatureNote("", 0.0, 0.5, ())}
    spec = SaeSpec(D, 12, "topk", 3, 2, "org/tiny", "org/sae")
    return SaeReport(bank, BASE, spec, "organism (train)", (0, 2), 1.0, 0.25, 0.5, notes, *both, (0.1, 0.2), (0.1, 0.2))


def write_results(bank: VectorBank, folder: Path) -> None:
    """All four result files, as `melbo inspect all` would."""
    digest = content_digest(bank.vectors)
    a_report(digest).save(folder / ACTIVATING)
    an_sae_report(digest).save(folder / SAE)
    save_lens(a_lens(digest), folder / LENS)
    a_geometry(digest).save(folder / GEOMETRY)
