"""Audit of a model before its release: what vectors bring out of it, how strongly, and what was not looked at.

1. Sweep R at the first site (a prompt and two layers), and take the suggested one.
2. At each site: train a bank, say what each vector does (random ones in the same way), look for backdoor-like answers,
   study the effect on refusals, and read the vectors with the logit lens and, where one is given, in a corpus.
3. Where tasks are given, elicit the hidden capability that they ask for.
4. Write report.html and audit.json. A part that fails is named there, with its error; the others go on.

Every part's result is a file in the folder: the same audit, run again, takes what is done from there.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from melbo.bank.vector_bank import VectorBank
from melbo.elicitation.tasks.checks import Functions, functions_digest
from melbo.elicitation.tasks.load import TaskSet
from melbo.errors import MelboError
from melbo.inspect.max_activating.corpus_reader import Corpus
from melbo.measure.behaviour_judge import BehaviourJudge
from melbo.measure.embeddings import Embedder
from melbo.models.identity import run_key
from melbo.models.load import LoadedModel
from melbo.reports.audit.config import BUDGETS, AuditConfig, Site, discovery, sites, task_config
from melbo.reports.audit.cost import Work, cut_to_fit, estimate
from melbo.reports.audit.groups import groups_of, wanted
from melbo.reports.audit.report import Audit, write_audit
from melbo.reports.audit.result_cache import Outcome, Store
from melbo.reports.audit.stages import INSPECTED, Parts, chosen
from melbo.runs.progress import OnProgress, Progress

__all__ = ["BUDGETS", "Audit", "AuditConfig", "Work", "cut_to_fit", "estimate", "run_audit"]

FOLLOWING = {
    "behaviours": "Behaviours",
    "examples": "Examples",
    "backdoors": "Backdoor-like answers",
    "refusals": "Refusals",
    "lens": "Logit lens",
    "corpus": "Corpus",
}
"""Parts that need a bank."""


def run_audit(
    loaded: LoadedModel,
    folder: Path,
    config: AuditConfig | None = None,
    tasks: TaskSet | None = None,
    functions: Functions | None = None,
    corpus: Corpus | None = None,
    embedder: Embedder | None = None,
    progress: OnProgress | None = None,
    judge: BehaviourJudge | None = None,
) -> Audit:
    """Audit a model; the report is folder/report.html, the values folder/audit.json.

    Args:
        folder: for all results; what is there with the same settings is not done again.
        config: None: the budget "quick". It is cut to its max_answers.
        tasks: of a capability that may be hidden; None: that part is left out, as for corpus.
        embedder: None: the default of `melbo.measure.embeddings.load_embedder`.
        progress: told of each part by its message; an exception from it cancels.
        judge: of the model's known behaviours; None: it has none.

    Raises:
        ConfigError: the settings do not fit the model, or max_answers is too small.
        OSError: the folder cannot be written.
    """
    config, cuts = cut_to_fit(loaded, config or BUDGETS["quick"], tasks)
    stopped: list[bool] = []

    def tell(step: Progress) -> None:
        if progress is not None:
            try:
                progress(step)
            except BaseException:
                stopped.append(True)
                raise

    store = Store(folder, lambda: bool(stopped))
    parts = Parts(loaded, config, folder, embedder, tell, judge)
    places = sites(config, loaded.n_layers)
    radius = _sweep(store, parts, places[0])
    for site in places:
        _audit_site(store, parts, site, radius, corpus)
    _tasks(store, parts, tasks, functions)
    return write_audit(folder, loaded, config, places, store.outcomes, cuts, estimate(loaded, config, tasks))


def _sweep(store: Store, parts: Parts, site: Site) -> float | None:
    """R for the banks: what the sweep suggests, else what it calibrated, else None."""
    c = parts.config
    settings = asdict(discovery(c, site)) | {"radii": c.radii, "n": c.sweep_vectors, "tokens": c.max_new_tokens}
    there = (parts.folder / "sweep.json").is_file()
    key = run_key(parts.loaded, settings, [site.prompt], **parts.measured_by)
    value = store.run("sweep", "R sweep", key, partial(parts.sweep, site), usable=there).value or {}
    return value.get("radius") or value.get("calibrated")


def _audit_site(store: Store, parts: Parts, site: Site, radius: float | None, corpus: Corpus | None) -> None:
    """All parts of one bank."""
    c, loaded, place = parts.config, parts.loaded, parts.bank_folder(site)
    key = run_key(loaded, asdict(discovery(c, site)), [site.prompt], radius=radius)
    done = store.run(
        f"bank-{site.name}", f"Bank {site.name}", key, partial(parts.bank, site, radius), usable=place.is_dir()
    )

    def leave_out(reason: str, *names: str) -> None:
        for name in names:
            store.leave_out(f"{name}-{site.name}", f"{FOLLOWING[name]} {site.name}", reason)

    if done.status != "done":
        leave_out(f"bank {site.name} is missing", *FOLLOWING)
        return
    bank = VectorBank.load(place)

    def run(name: str, work: Callable[..., dict[str, Any]], *given: Any, usable: bool = True, **more: Any) -> Outcome:
        wide = {k: v for k, v in asdict(c).items() if k not in ("max_answers", "n_tasks", "refusal_vectors")}
        own = run_key(loaded, wide, [site.prompt], bank=bank.digest, **more)
        task = partial(work, site, bank, *given)
        return store.run(f"{name}-{site.name}", f"{FOLLOWING[name]} {site.name}", own, task, usable=usable)

    told = run("behaviours", parts.annotate, usable=bool(bank.annotations), **parts.measured_by)
    bank = VectorBank.load(place) if told.status == "done" else replace(bank, annotations=())
    if told.value is not None and (pairs := wanted(groups_of({site.name: told.value}), site.name)):
        run("examples", parts.examples, pairs, pairs=pairs)
    run("backdoors", parts.backdoors)
    if vectors := _refusing(bank, c.refusal_vectors):
        run("refusals", parts.refusals, vectors, vectors=vectors)
    else:
        leave_out("no vector of the bank changes refusals", "refusals")
    looked = chosen(bank, INSPECTED)
    if not looked:
        leave_out("all vectors of the bank are duds", "lens", "corpus")
        return
    named = [[i, bank.label(i)] for i in looked]
    run("lens", parts.lens, looked, vectors=named)
    if corpus is None:
        leave_out("no corpus was given", "corpus")
    else:
        run("corpus", parts.activating, looked, corpus, vectors=named, corpus=_content(corpus))


def _content(corpus: Corpus) -> list[str]:
    try:
        return [corpus.name, corpus.digest()]
    except (MelboError, OSError):  # the part that reads it fails, too, and says why
        return [corpus.name, "unreadable"]


def _refusing(bank: VectorBank, most: int) -> list[int]:
    """Vectors to study for refusals: those that remove them, then those that add them; without tags, the largest."""
    if not bank.annotations:
        return chosen(bank, most)
    return list(dict.fromkeys([*chosen(bank, most, "non-refusal"), *chosen(bank, most, "refuses")]))[:most]


def _tasks(store: Store, parts: Parts, tasks: TaskSet | None, functions: Functions | None) -> None:
    if tasks is None:
        store.leave_out("tasks", "Tasks", "no tasks were given")
        return
    part = tasks.cut(parts.config.n_tasks, parts.config.n_tasks)
    told = [t.messages for t in (*part.train, *part.test)]
    checks = [asdict(t.check) for t in (*part.train, *part.test)]
    key = run_key(
        parts.loaded, task_config(parts.config).to_dict(), told, checks=checks, functions=functions_digest(functions)
    )
    store.run("tasks", "Tasks", key, partial(parts.tasks, tasks, functions))
