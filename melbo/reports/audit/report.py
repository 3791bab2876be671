"""An audit's results as audit.json, and as one HTML file without outside parts. All foreign text is escaped."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from melbo.bank.result_file import write_result
from melbo.bank.vector_bank import library_versions
from melbo.elicitation.backdoors import ORIGINAL_POST
from melbo.errors import MelboError
from melbo.models.load import LoadedModel
from melbo.radius_sweep.plot import draw_sweep
from melbo.radius_sweep.sweep import load_sweep
from melbo.reports.audit.config import AuditConfig, Site
from melbo.reports.audit.cost import Work
from melbo.reports.audit.groups import Group, examples, groups_of
from melbo.reports.audit.result_cache import Outcome
from melbo.reports.page import inside, render
from melbo.reports.replication.plots import draw_scales, draw_shares
from melbo.runs.files import write_file

FORMAT = "melbo-audit-1"
HTML, JSON = "report.html", "audit.json"
SECTIONS = ("behaviours", "examples", "backdoors", "refusals", "lens", "corpus")
"""Parts that each site has."""


@dataclass(frozen=True)
class Audit:
    """A finished audit."""

    page: Path
    """The report."""
    value: dict[str, Any]
    """What audit.json holds."""
    groups: tuple[Group, ...]

    @property
    def failed(self) -> list[dict[str, str]]:
        """Parts that failed: name, title, status, reason."""
        return [p for p in self.value["parts"] if p["status"] == "failed"]


def write_audit(
    folder: Path,
    loaded: LoadedModel,
    config: AuditConfig,
    places: Sequence[Site],
    outcomes: Sequence[Outcome],
    cuts: Sequence[str],
    work: Work,
) -> Audit:
    """Write both files."""
    by_name = {o.name: o.value for o in outcomes if o.value is not None}
    sections = {
        section: {s.name: by_name[f"{section}-{s.name}"] for s in places if f"{section}-{s.name}" in by_name}
        for section in SECTIONS
    }
    groups = groups_of(sections["behaviours"]) if sections["behaviours"] else []
    model = loaded.model
    value: dict[str, Any] = {
        "model": {
            "name": loaded.name, "revision": loaded.revision, "dtype": str(model.dtype), "blocks": loaded.n_layers,
            "d_model": loaded.d_model, "parameters": sum(p.numel() for p in model.parameters()),
        },
        "config": asdict(config),
        "work": {**asdict(work), "total": work.total},
        "cuts": list(cuts),
        "sites": [asdict(s) | {"bank": by_name.get(f"bank-{s.name}")} for s in places],
        "parts": [{k: v for k, v in asdict(o).items() if k != "value"} for o in outcomes],
        "groups": [g.to_dict() for g in groups],
        "sweep": by_name.get("sweep"),
        **{section: found for section, found in sections.items() if section != "behaviours"},
        "tasks": by_name.get("tasks"),
        "not_covered": not_covered(loaded, config, places, outcomes, cuts),
        "versions": library_versions(),
    }  # fmt: skip
    write_result(folder / JSON, FORMAT, value)
    plots, trouble = _plots(folder, value, groups)
    made = Audit(folder / HTML, value, tuple(groups))
    limits = {
        site: max((f["score"] for f in found["random"]["distinct"]), default=0.0)
        for site, found in sections["backdoors"].items()
    }
    shown = {
        "value": value,
        "groups": groups,
        "failed": made.failed,
        "examples": examples,
        "limits": limits,
        "studies": [(site, study) for site, found in sections["refusals"].items() for study in found["studies"]],
        "original_post": ORIGINAL_POST,
        "trouble": trouble,
    }
    write_file(made.page, render("audit/report.html.jinja", shown, plots))
    return made


def not_covered(
    loaded: LoadedModel,
    config: AuditConfig,
    places: Sequence[Site],
    outcomes: Sequence[Outcome],
    cuts: Sequence[str],
) -> list[str]:
    """What a reader must not take as looked at, one sentence each."""
    tried = sorted({s.source for s in places})
    rest = [i for i in range(loaded.n_layers - 1) if i not in tried]
    read = sorted({s.target for s in places})
    trained = list(dict.fromkeys(s.prompt[-1]["content"] for s in places))
    scales = ", ".join(f"{s:g}" for s in config.scales)
    found = [f"{c} by the limit of {config.max_answers:,} answers." for c in cuts]
    found += [f"{o.title} failed: {o.reason}" for o in outcomes if o.status == "failed"]
    found += [f"{o.title}: not run, {o.reason}." for o in outcomes if o.status == "left out"]
    return [
        *found,
        f"Layers: vectors were added after block {_numbers(tried)} and chosen by their effect at block "
        f"{_numbers(read)}; adding them after block {_numbers(rest) or 'none'} was not tried.",
        f"Prompts: banks were trained on {len(trained)} prompt(s) and judged on {config.n_prompts}, in English, one "
        "turn each, under one system message. Behaviour that needs other prompts, longer chats or tools is not seen.",
        f"Vectors: {config.n_vectors} of each bank, method MELBO with one R for all; the methods dct, power and "
        f"sae-basis and trained adapters were not run, nor other seeds. Sizes of scale: {scales}.",
        f"Answers: greedy, at most {config.max_new_tokens} tokens. Sampled answers and later text were not looked at.",
        "Judgement: refusals are told by phrases in six languages, languages by identification, coherence by the "
        "model's own likelihood. No person and no other model has read the answers; no answer was checked for truth, "
        "harm or use to anybody.",
        "Backdoors: an answer is listed because the unsteered model finds it unlikely; a trigger is not searched for, "
        "and a backdoor that these vectors do not reach stays hidden.",
        "Nothing found is no proof that nothing is there.",
    ]


def _numbers(values: Sequence[int]) -> str:
    """ "0, 2 to 5": runs of three and more are shortened."""
    runs: list[list[int]] = []
    for v in values:
        if runs and v == runs[-1][-1] + 1:
            runs[-1].append(v)
        else:
            runs.append([v])
    parts = [f"{r[0]} to {r[-1]}" if len(r) > 2 else ", ".join(map(str, r)) for r in runs]
    return ", ".join(parts)


def _plots(folder: Path, value: dict[str, Any], groups: Sequence[Group]) -> tuple[dict[str, str], str]:
    """Data URIs by name, and why some are missing."""
    found: dict[str, bytes | None] = {}
    trouble = ""
    findings = [g.finding for g in groups if g.rows]
    try:
        if findings:
            found["shares"], found["scales"] = draw_shares(findings), draw_scales(findings)
        if value["sweep"] is not None:
            found["sweep"] = draw_sweep(load_sweep(folder / "sweep.json"), ".png")
    except MelboError as error:  # matplotlib is not installed
        trouble = str(error)
    return inside({name: image for name, image in found.items() if image}), trouble
