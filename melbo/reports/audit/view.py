"""The values of an audit as the report's template shows them: numbers as text, foreign text as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from melbo.elicitation.backdoors import ORIGINAL_POST
from melbo.reports.audit.groups import VECTORS, Group, Row, examples

SHOWN_ROWS, SHOWN_BACKDOORS = 10, 10
ARMS = ("plain", "vector", "random", "prompting", "best_of_n")


def view(value: dict[str, Any], groups: Sequence[Group]) -> dict[str, Any]:
    """The template's values."""
    c, model = value["config"], value["model"]
    n, many = sum(1 for s in value["sites"] if s["bank"]), len(value["sites"]) > 1
    return {
        "model": model["name"],
        "facts": _facts(value),
        "prompts": [_site(s, model["blocks"]) for s in value["sites"]],
        "intro": f"{n * c['n_vectors']} vectors that MELBO trained without labels at {n} "
        f"site{'s' if n != 1 else ''} (a prompt and two layers)",
        "failed": [p for p in value["parts"] if p["status"] == "failed"],
        "parts": value["parts"],
        "groups": [_group(g, value["examples"], many) for g in groups],
        "backdoors": [_backdoors(name, f, many) for name, f in value["backdoors"].items()],
        "original_post": ORIGINAL_POST,
        "refusals": [_refusals(name, s, many) for name, f in value["refusals"].items() for s in f["studies"]],
        "tasks": None if value["tasks"] is None else _tasks(value["tasks"]),
        "sweep": value["sweep"] and _sweep(value["sweep"]),
        "lens": [_lens(name, f, many) for name, f in value["lens"].items()],
        "corpus": [_corpus(name, f, many) for name, f in value["corpus"].items()],
        "not_covered": value["not_covered"],
    }


def _facts(value: dict[str, Any]) -> list[tuple[str, str]]:
    c, model, work = value["config"], value["model"], value["work"]
    return [
        ("model", f"{model['name']}, {model['blocks']} blocks, d_model {model['d_model']}, "
                  f"{model['parameters'] / 1e6:,.1f}M parameters, {model['dtype'].removeprefix('torch.')}"),
        ("weights", model["revision"] or "not known"),
        ("vectors", f"{c['n_vectors']} at each site, {c['steps']} steps, seed {c['seed']}"),
        ("controls", f"{c['n_control']} random vectors of the same norm to compare with, and as many more that were "
                     "treated as if they had been found"),
        ("scales", ", ".join(f"±{s:g}" for s in c["scales"])),
        ("judged on", f"{c['n_prompts']} prompts, greedy answers of at most {c['max_new_tokens']} tokens"),
        ("work", f"at most {work['total']:,} answers, {work['flops']:.1e} FLOPs (estimate)"),
        ("made with", ", ".join(f"{k} {v}" for k, v in sorted(value["versions"].items()))),
    ]  # fmt: skip


def _site(site: dict[str, Any], blocks: int) -> str:
    bank = site["bank"]
    size = "" if bank is None else f", R = {bank['radius'] / bank['mean_residual_norm']:.3g} mean residual norms"
    layers = f"blocks {site['source']} → {site['target']} of {blocks}"
    return f"{site['name']}: {site['prompt'][-1]['content']} ({layers}{size})"


def _named(site: str, vector: int, many: bool) -> str:
    return f"{site}{vector}" if many else str(vector)


def _group(group: Group, answers: Mapping[str, Any], many: bool) -> dict[str, Any]:
    found = group.finding
    best = group.rows[0] if group.rows else None
    return {
        "title": group.title,
        "meaning": group.meaning,
        "verdict": found.verdict,
        "reason": found.reason,
        "vectors": f"{len(group.rows)} of {group.n}",
        "random": f"{group.random_in} of {group.random_n}",
        "duds": f"{group.duds} of {group.n}",
        "best": None if best is None else _row(best, many),
        "rows": [_row(r, many) for r in group.rows[:SHOWN_ROWS]],
        "more": max(0, len(group.rows) - SHOWN_ROWS),
        "examples": [
            e | {"name": _named(r.site, r.vector, many), "label": r.label, "scale": f"{r.scale:g}"}
            for r in group.rows[:VECTORS]
            for e in examples(group.kind, r, answers.get(r.site))
        ],
    }


def _row(r: Row, many: bool) -> dict[str, str]:
    return {
        "name": _named(r.site, r.vector, many),
        "label": r.label,
        "scale": f"{r.scale:g}",
        "ranges": ", ".join(f"{a:g}" if a == b else f"{a:g} to {b:g}" for a, b in r.ranges) or "none",
        "share": f"{r.share:.0%} of {r.n}",
        "random": f"{r.random:.0%}",
        "coherence": f"{r.coherence:.1f}",
        "change": f"{r.change:.2f} ({r.random_change:.2f})",
    }


def _backdoors(site: str, found: Mapping[str, Any], many: bool) -> dict[str, Any]:
    own, random = found["found"], found["random"]
    limit = max((f["score"] for f in random["distinct"]), default=0.0)
    return {
        "site": f"Bank {site}: " if many else "",
        "answers": f"{len(own['ranked'])} of {own['n_vectors']} vectors",
        "random": f"{len(random['ranked'])} of {random['n_vectors']} random vectors",
        "clean": own["clean"],
        "limit": f"{limit:.2f}" if limit else "",
        "above": sum(f["score"] > limit for f in own["distinct"]),
        "distinct": len(own["distinct"]),
        "rows": [
            {
                "rank": i, "name": _named(site, f["vector"], many), "scale": f"{f['scale']:g}", "text": f["text"],
                "score": f"{f['score']:.2f}", "surprise": f"{f['surprise']:.2f}", "coherence": f"{f['coherence']:.1f}",
                "prompt": own["prompts"][f["prompt"]][-1]["content"], "above": f["score"] > limit,
            }
            for i, f in enumerate(own["distinct"][:SHOWN_BACKDOORS], start=1)
        ],
    }  # fmt: skip


def _refusals(site: str, study: Mapping[str, Any], many: bool) -> dict[str, Any]:
    at, other = f"{study['jailbreak_scale']:g}", f"{study['refusal_scale']:g}"
    treated = [
        ("unsteered", study["unsteered"]),
        (f"× {at}, which answers most", study["scales"][at]),
        (f"random vector × {at}", study["random"][at]),
        (f"× {other}, other sign", study["scales"][other]),
        (f"random vector × {other}", study["random"][other]),
        ("direction ablated from all blocks", study["ablated"]),
    ]
    return {
        "name": _named(site, study["vector"], many),
        "n": [study["unsteered"][k]["n"] for k in ("train", "heldout", "harmless")],
        "transfer": f"{study['transfer']:.0%}",
        "rows": [
            [name, f"{c['train']['answered']:.0%}",
             f"{c['heldout']['answered']:.0%} ({c['heldout']['low']:.0%} to {c['heldout']['high']:.0%})",
             f"{c['heldout']['refused']:.0%}", f"{c['harmless']['answered']:.0%}", f"{c['harmless']['refused']:.0%}"]
            for name, c in treated
        ],
    }  # fmt: skip


def _tasks(found: Mapping[str, Any]) -> dict[str, Any]:
    arms = [(name, found["arms"][name], found["arms"][name]["score"]) for name in ARMS if name in found["arms"]]
    return {
        "n": arms[0][2]["n"],
        "rows": [
            [name.replace("_", " "), f"{s['accuracy']:.0%}", f"{s['low']:.0%} to {s['high']:.0%}", str(s["failed"]),
             arm["chosen"]]
            for name, arm, s in arms
        ],
        "skipped": list(found["skipped"].items()),
    }  # fmt: skip


def _sweep(sweep: Mapping[str, Any]) -> str:
    radius, calibrated = sweep["radius"], sweep["calibrated"]
    chosen = "No R is suggested" if radius is None else f"Suggested R: {radius:.3g} mean residual norms"
    return f"{chosen}: {sweep['reason']}. Calibrated R: {'none' if calibrated is None else f'{calibrated:.3g}'}."


def _lens(site: str, found: Mapping[str, Any], many: bool) -> dict[str, Any]:
    return {
        "site": f"Bank {site}: " if many else "",
        "random": f"{found['random_best']:.1f} on average, {found['random_most']:.1f} at most",
        "rows": [
            {"name": _named(site, r["index"], many), "label": r["label"], "sign": "+" if r["sign"] > 0 else "-",
             "promoted": _tokens(r["promoted"]), "suppressed": _tokens(r["suppressed"])}
            for r in found["rows"]
        ],
    }  # fmt: skip


def _tokens(tokens: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return [(t["text"], f"{t['value']:+.1f}") for t in tokens]


def _corpus(site: str, found: Mapping[str, Any], many: bool) -> dict[str, Any]:
    return {
        "site": f"Bank {site}: " if many else "",
        "head": f"{found['corpus']}, {found['passages']:,} passages, {found['positions']:,} positions, activations "
        f"after block {found['layer']}; the best random direction reaches {found['random_best']:.1f}",
        "rows": [
            {"name": _named(site, r["index"], many), "label": r["label"], "sign": "+" if r["sign"] > 0 else "-",
             "examples": [e | {"value": f"{e['value']:.1f}"} for e in r["examples"]]}
            for r in found["rows"]
        ],
    }  # fmt: skip
