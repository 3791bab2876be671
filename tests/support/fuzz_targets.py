"""What is fuzzed: for each loader small files that it takes, the loading, the saving, and when two values are equal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import torch
from torch import Tensor

from melbo.app.choices import example_prompts, opening, picker, presets, system_prompt, vector_note
from melbo.app.conversation import from_view, to_view
from melbo.app.tabs.bank.handlers import vector_rows
from melbo.app.tabs.bank.html import lens_html, page_html, table_html
from melbo.app.tabs.steer.html import note_html, range_html
from melbo.app.tabs.steer.link import Shared, from_query, to_query
from melbo.app.tabs.steer.settings import Settings
from melbo.bank.adapter_bank import AdapterBank
from melbo.bank.annotation import Annotation, Example, merged
from melbo.bank.listing import list_local
from melbo.bank.vector_bank import VectorBank
from melbo.formats.mixture import Mixture
from melbo.formats.read_vectors import ForeignVectors, read_vectors
from melbo.formats.writers.arrays import export_npy, export_safetensors, export_svec
from melbo.formats.writers.control_gguf import export_control_gguf
from melbo.inspect.geometry.difference_of_means import load_contrasts
from melbo.inspect.geometry.similarity import sort_by_cluster
from melbo.inspect.layers.atlas import LayerAtlas
from melbo.inspect.max_activating.corpus_reader import open_corpus
from melbo.inspect.max_activating.report import ActivatingReport, page, table
from melbo.inspect.sae.dictionary import Sae, SaeSpec
from melbo.inspect.sae.files import load_sae, save_sae
from melbo.inspect.stored import (
    activating_examples,
    lens_rows,
    sae_neighbours,
    stored_activating,
    stored_geometry,
    stored_lens,
    stored_sae,
)
from melbo.publishing.card.render import render_card
from melbo.radius_sweep.result import load_sweep
from support.fuzz_mutate import BYTES, JSON, Mutation
from support.fuzz_values import (
    PROMPTS,
    D,
    N,
    a_bank,
    a_report,
    a_sweep,
    an_adapter_bank,
    an_atlas,
    an_sae,
    draw,
    write_results,
)


@dataclass(frozen=True)
class Target:
    """One loader."""

    name: str
    write: Callable[[Path], Any]
    """Fill an empty folder with files that load."""
    load: Callable[[Path], Any]
    """From such a folder."""
    save: Callable[[Any, Path], Any] | None = None
    """Write what was loaded into an empty folder, so that `load` takes it; None: there is no such format."""
    use: Callable[[Any], Any] | None = None
    """What is done with every value that loads: it must not fail either."""
    kinds: tuple[Mutation, ...] = ()
    """Mutations to choose from; empty: those for the file's name, and links in its place."""


def plain(value: Any) -> Any:
    """A value to compare: tensors by type, shape and bytes; where a thing was loaded from does not count."""
    if isinstance(value, Tensor):
        flat = value.detach().contiguous()
        assert bool(torch.isfinite(flat).all()), "a tensor holds NaN or infinite values"
        return (str(flat.dtype), tuple(flat.shape), flat.numpy().tobytes())
    if is_dataclass(value) and not isinstance(value, type):
        kept = [
            f.name
            for f in fields(value)
            if not (f.name in ("folder",) or (isinstance(value, SaeSpec) and f.name == "source"))
        ]
        return {name: plain(getattr(value, name)) for name in kept}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    assert not isinstance(value, float) or math.isfinite(value), "a number is not finite"
    return value


def write_sparsify(folder: Path) -> None:
    from safetensors.torch import save_file

    inside = folder / "layers.2"
    inside.mkdir()
    (inside / "cfg.json").write_text(json.dumps({"d_in": D, "num_latents": 12, "k": 3, "activation": "topk"}))
    (folder / "config.json").write_text(json.dumps({"model": "org/tiny"}))
    tensors = {"encoder.weight": draw(12, D), "encoder.bias": draw(12), "W_dec": draw(12, D), "b_dec": draw(D)}
    save_file(tensors, str(inside / "sae.safetensors"))


def write_saelens_topk(folder: Path) -> None:
    spec = SaeSpec(D, 12, "topk", 3, 2, "org/tiny")
    save_sae(Sae(spec, draw(12, D), draw(12), draw(12, D), draw(D)), folder)
    path = folder / "cfg.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rescale_acts_by_decoder_norm": True}))


def load_bank(folder: Path) -> VectorBank:
    """Also the listing, which takes damaged banks without an error."""
    list_local(folder)
    return VectorBank.load(folder)


def read_corpus(folder: Path) -> list[Any]:
    return list(open_corpus(str(folder / "c.jsonl")).read())


def write_corpus(folder: Path) -> None:
    rows = [{"text": "One two."}, {"messages": list(PROMPTS[0]), "mark": "x"}, "text"]
    (folder / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


LINK_BANK = a_bank()


def load_link(folder: Path) -> Shared | None:
    """Scales to six digits, and an instruction only where one is given, as a link holds them."""
    text = (folder / "link").read_bytes().decode("utf-8", "replace")
    shared = from_query(LINK_BANK, dict(parse_qsl(text)))
    if shared is None:
        return None
    mix = tuple((vector, float(f"{scale:g}")) for vector, scale in shared.settings.mix)
    told = shared.settings.instruction if shared.settings.side == "prompt" else ""
    return replace(shared, settings=replace(shared.settings, mix=mix, instruction=told))


def save_link(shared: Shared | None, folder: Path) -> None:
    text = "" if shared is None else to_query(LINK_BANK, shared.settings, shared.question)
    (folder / "link").write_text(text)


def write_link(folder: Path) -> None:
    settings = Settings(((0, 1.5), (2, -0.5)), "prompt", "Be kind.", "Sys", 0.5, 0.9, 40, 7, "prompt")
    save_link(Shared(settings, "How do I bake? é"), folder)


def load_chat(folder: Path) -> Any:
    """The browser's messages may be any JSON that its server could read."""
    try:
        value = json.loads((folder / "chat.json").read_text())
    except (ValueError, RecursionError):
        return []
    return from_view(value if isinstance(value, list) else None)


def use_bank(bank: VectorBank) -> None:
    """All that shows a bank's annotations."""
    render_card(bank)
    table_html(vector_rows(bank), 0, len(bank))
    for index in range(len(bank)):
        page_html(bank, index)
        range_html(bank, index)
        note_html(vector_note(bank, index))
        merged(bank.annotation(index), Annotation(label="x", examples=(Example("How?", 1.0, "x", "y"),)))
    presets(bank), opening(bank), picker(bank), example_prompts(bank), system_prompt(bank)


Results = tuple[VectorBank, Any, Any, Any, Any]


def write_results_and_bank(folder: Path) -> None:
    bank = a_bank()
    bank.save(folder)
    write_results(bank, folder)


def load_results(folder: Path) -> Results:
    """The bank, and what lies beside it; a result that is damaged or of other vectors is none, without an error."""
    bank = VectorBank.load(folder)
    return bank, stored_activating(bank), stored_sae(bank), stored_lens(bank), stored_geometry(bank)


def use_results(results: Results) -> None:
    """All that shows them; the card reads files that the loaders above refuse, too."""
    bank, activating, _, lens, geometry = results
    assert bank.source is not None
    render_card(bank, folder=bank.source.folder)
    for index in range(len(bank)):
        page_html(bank, index, activating_examples(bank, index), sae_neighbours(bank, index))
        lens_rows(bank, index)
    for report in lens:
        report.table(), lens_html(report)
    if activating is not None:
        page(activating), table(activating)
    if geometry is not None:
        geometry.table(), sort_by_cluster(geometry)


def foreign(name: str, write: Callable[[Path], Any]) -> Target:
    def save(value: ForeignVectors, folder: Path) -> None:
        kept = value.vectors
        torch.save(kept, folder / name) if name.endswith(".pt") else None
        if name.endswith(".npy"):
            export_npy(kept, folder / name)
        elif not name.endswith(".pt"):
            assert value.layer is not None or name.endswith(".safetensors")
            if value.layer is None:
                export_safetensors(kept, folder / name, 10**6, "x")  # a layer that is none: read as None
            else:
                export_safetensors(kept, folder / name, value.layer, "x")

    def load(folder: Path) -> Any:
        found = read_vectors(folder / name)
        return found.vectors, found.layer

    return Target(name.rsplit(".", 1)[-1], lambda folder: write(folder / name), load,
                  lambda value, folder: save(ForeignVectors(value[0], value[1], ""), folder))  # fmt: skip


MIXTURE = Mixture(draw(D), 2, "org/tiny", "mode 0")
TARGETS = (
    Target("bank", lambda f: _into(f, a_bank()), load_bank, lambda bank, f: bank.save(f), use_bank),
    Target("results", write_results_and_bank, load_results, lambda found, f: found[0].save(f), use_results),
    Target("adapters", lambda f: _into(f, an_adapter_bank()), AdapterBank.load, lambda bank, f: bank.save(f)),
    Target("sweep", lambda f: a_sweep().save(f / "sweep.json"), load_sweep,
           lambda sweep, f: sweep.save(f / "sweep.json"), lambda sweep: (sweep.suggested, sweep.floor)),
    foreign("v.gguf", lambda p: export_control_gguf(MIXTURE, p, "easysteer")),
    foreign("v.svec", lambda p: export_svec(MIXTURE, p)),
    foreign("v.npy", lambda p: export_npy(draw(N, D), p)),
    foreign("v.safetensors", lambda p: export_safetensors(draw(N, D), p, 2, "org/tiny")),
    foreign("v.pt", lambda p: torch.save(draw(N, D), p)),
    Target("sae", lambda f: save_sae(an_sae(), f), load_sae, lambda sae, f: save_sae(sae, f, torch.float32)),
    Target("sae-topk", write_saelens_topk, load_sae, lambda sae, f: save_sae(sae, f, torch.float32)),
    Target("sparsify", write_sparsify, lambda f: load_sae(f, layer=2), lambda sae, f: save_sae(sae, f, torch.float32)),
    Target("activating", lambda f: a_report().save(f / "r.json"), lambda f: ActivatingReport.load(f / "r.json"),
           lambda report, f: report.save(f / "r.json"), lambda report: (page(report), table(report))),
    Target("atlas", lambda f: an_atlas().save(f / "a.json"), lambda f: LayerAtlas.load(f / "a.json"),
           lambda atlas, f: atlas.save(f / "a.json"), lambda atlas: (atlas.table(), atlas.matrix("ratio"))),
    Target("contrasts", lambda f: (f / "c.json").write_text('{"a": {"positive": ["Yes."], "negative": ["No."]}}'),
           lambda f: load_contrasts(f / "c.json")),
    Target("corpus", write_corpus, read_corpus),
    Target("link", write_link, load_link, save_link, None, BYTES),
    Target("chat", lambda f: (f / "chat.json").write_text(json.dumps(to_view(PROMPTS[0]))), load_chat,
           lambda chat, f: (f / "chat.json").write_text(json.dumps(to_view(chat))), None, JSON),
)  # fmt: skip


def _into(folder: Path, bank: VectorBank | AdapterBank) -> None:
    bank.save(folder)
