"""What the parts of an audit do. Each takes a checkpoint file and gives JSON values; banks lie in folders beside."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from melbo.annotation.annotate import annotate
from melbo.bank.annotation import write_annotation
from melbo.bank.vector_bank import VectorBank
from melbo.discovery.discover import discover, random_control
from melbo.elicitation.backdoors import find_backdoors
from melbo.elicitation.refusals import study_refusals
from melbo.elicitation.run import elicit, forget
from melbo.elicitation.tasks.checks import Functions
from melbo.elicitation.tasks.load import TaskSet
from melbo.inspect.lens.logit_lens import logit_lens
from melbo.inspect.max_activating.corpus_reader import Corpus
from melbo.inspect.max_activating.find import find_activating
from melbo.inspect.max_activating.report import ActivatingConfig, Direction, best_values
from melbo.measure.behaviour_judge import BehaviourJudge, judge_key
from melbo.measure.coherence import CoherenceScale, calibrate_coherence
from melbo.measure.embeddings import DEFAULT_EMBEDDER, Embedder, load_embedder
from melbo.models.load import LoadedModel
from melbo.radius_sweep.sweep import SweepConfig, run_sweep
from melbo.reports.audit.config import AuditConfig, Site, answered, discovery, task_config
from melbo.reports.audit.groups import strongest
from melbo.runs.parse import dump
from melbo.runs.progress import OnProgress, notify, titled
from melbo.steering.generate import Sampling, complete
from melbo.steering.random_vectors import control_seed, control_vectors, random_vectors

INSPECTED = 12
"""Most vectors of a bank that the lens and the corpus are asked about."""
TOKENS, EXAMPLES = 6, 3
"""Of the lens, and of the corpus, for each vector and sign."""


@dataclass(frozen=True)
class Parts:
    """What all parts share."""

    loaded: LoadedModel
    config: AuditConfig
    folder: Path
    given_embedder: Embedder | None
    tell: OnProgress
    judge: BehaviourJudge | None
    """Of the model's known behaviours; None: it has none."""

    @cached_property
    def embedder(self) -> Embedder:
        """Sentence embeddings of answers."""
        return self.given_embedder or load_embedder()

    @property
    def measured_by(self) -> dict[str, Any]:
        """The embedder, without loading it, and the judge; as JSON values."""
        embedder = DEFAULT_EMBEDDER if self.given_embedder is None else self.given_embedder.name
        return {"embedder": embedder, "judge": judge_key(self.judge)}

    @cached_property
    def coherence_scale(self) -> CoherenceScale:
        """Calibrated on the model; raises MetricError where that fails."""
        return calibrate_coherence(self.loaded, seed=self.config.seed)

    def bank_folder(self, site: Site) -> Path:
        """Where the site's bank lies."""
        return self.folder / "banks" / site.name

    def sweep(self, site: Site, checkpoint: Path) -> dict[str, Any]:
        """The R sweep of the first site: sweep.json, and the R that the banks get."""
        c = self.config
        base = discovery(c, site)
        config = SweepConfig(base, c.radii, "residual", c.sweep_vectors, Sampling(max_new_tokens=c.max_new_tokens))
        found = run_sweep(
            self.loaded, config, [site.prompt], self.embedder,
            titled(self.tell, "R sweep: {}"), checkpoint,
            judge=self.judge,
        )  # fmt: skip
        found.save(self.folder / "sweep.json")
        suggested = found.suggested
        return {"radius": suggested.radius, "reason": suggested.reason, "calibrated": found.auto_radius}

    def bank(self, site: Site, radius: float | None, checkpoint: Path) -> dict[str, Any]:
        """Train a bank at R, or where that is None at the calibrated one."""
        tell = titled(self.tell, f"bank {site.name}")
        unit: dict[str, Any] = (
            {"radius_unit": "auto"} if radius is None else {"radius": radius, "radius_unit": "residual"}
        )
        found = discover(self.loaded, discovery(self.config, site, **unit), [site.prompt], tell, checkpoint)
        found.save(self.bank_folder(site))
        return {"radius": found.radius, "mean_residual_norm": found.mean_residual_norm, "config": asdict(found.config)}

    def annotate(self, site: Site, bank: VectorBank, checkpoint: Path) -> dict[str, Any]:
        """Say what each vector does, and in the same way what as many random ones as the control has seem to do."""
        n, seed = len(bank), (control_seed(bank.config.seed) + 1) % 2**32
        extra = random_vectors(self.config.n_control, self.loaded.d_model, bank.radius, False, seed)
        both = replace(
            bank,
            vectors=torch.cat([bank.vectors, extra]),
            objective=torch.cat([bank.objective, torch.zeros(len(extra))]),
            output_directions=torch.cat([bank.output_directions, torch.zeros_like(extra)]),
            annotations=(),
            score=None,
        )
        found = annotate(
            self.loaded, both, answered(self.config, site), self.config.scales, self.embedder,
            titled(self.tell, f"behaviours {site.name}"), checkpoint, judge=self.judge, n_control=self.config.n_control,
            max_new_tokens=self.config.max_new_tokens, coherence_scale=self.coherence_scale,
        )  # fmt: skip
        made = replace(bank, annotations=found.annotations[:n], details=found.details)
        made.save(self.bank_folder(site))
        return {
            "settings": found.details["annotation"],
            "vectors": [write_annotation(note) for note in found.annotations[:n]],
            "random": [write_annotation(note) for note in found.annotations[n:]],
        }

    def examples(
        self, site: Site, bank: VectorBank, pairs: Sequence[tuple[int, float]], _checkpoint: Path
    ) -> dict[str, Any]:
        """Answers to show: under these vectors and scales, under one random vector, and without steering."""
        random = control_vectors(1, self.loaded.d_model, bank.radius, True, bank.config.seed)[0]
        sizes = sorted({abs(scale) for _, scale in pairs})
        prompts = answered(self.config, site)
        steps = [*(bank.vector(v, s) for v, s in pairs), *(random * s for s in sizes)]
        texts: list[list[str]] = [complete(self.loaded, prompts, sampling=Sampling(self.config.max_new_tokens))]
        for i, vector in enumerate(steps):
            notify(self.tell, i, len(steps), f"examples {site.name}")
            rows = vector.expand(len(prompts), -1)
            texts.append(complete(self.loaded, prompts, rows, bank.layer, Sampling(self.config.max_new_tokens)))
        own = zip(pairs, texts[1:], strict=False)
        return {
            "users": [p[-1]["content"] for p in prompts],
            "unsteered": texts[0],
            "vectors": [{"vector": v, "scale": s, "texts": t} for (v, s), t in own],
            "random": {f"{s:g}": t for s, t in zip(sizes, texts[1 + len(pairs) :], strict=True)},
        }

    def backdoors(self, site: Site, bank: VectorBank, checkpoint: Path) -> dict[str, Any]:
        """Answers that the unsteered model finds unlikely, of the bank's and of random vectors."""
        random = random_control(self.loaded, bank.select(range(min(self.config.n_control, len(bank)))))
        prompts = answered(self.config, site)[: self.config.backdoor_prompts]
        found = {}
        for name, own in (("found", bank), ("random", random)):
            tell = titled(self.tell, f"backdoors {site.name}" + (", random" if own is random else ""))
            beside = checkpoint.with_name(f"{checkpoint.name}.{name}")
            found[name] = find_backdoors(
                self.loaded, own, prompts, None, self.config.scales, self.config.max_new_tokens, self.coherence_scale,
                tell, beside,
            )  # fmt: skip
        return {name: {**f.to_dict(), "distinct": [d.to_dict() for d in f.distinct]} for name, f in found.items()}

    def refusals(self, site: Site, bank: VectorBank, vectors: Sequence[int], _checkpoint: Path) -> dict[str, Any]:
        """What the chosen vectors do to refusals."""
        tell, tokens = titled(self.tell, f"refusals {site.name}: {{}}"), self.config.max_new_tokens
        found = [study_refusals(self.loaded, bank, v, max_new_tokens=tokens, progress=tell) for v in vectors]
        return {"studies": [study.to_dict() for study in found]}

    def lens(self, site: Site, bank: VectorBank, vectors: Sequence[int], _checkpoint: Path) -> dict[str, Any]:
        """Tokens that the chosen vectors move."""
        notify(self.tell, 0, 1, f"logit lens {site.name}")
        return dump(logit_lens(self.loaded, bank, "effect", vectors, TOKENS, seed=self.config.seed))

    def activating(
        self, site: Site, bank: VectorBank, vectors: Sequence[int], corpus: Corpus, checkpoint: Path
    ) -> dict[str, Any]:
        """Passages of a corpus at which the chosen vectors are most active."""
        found = find_activating(
            self.loaded, bank.select(vectors), corpus,
            ActivatingConfig(k=EXAMPLES, n_random=self.config.n_control, seed=self.config.seed),
            lambda p: notify(self.tell, p.done, self.config.corpus_documents, f"corpus {site.name}"),
            checkpoint,
        )  # fmt: skip
        rows = [_direction(d) | {"index": vectors[d.index]} for d in found.directions]
        head = {name: getattr(found, name) for name in ("corpus", "passages", "tokens", "positions", "layer")}
        return head | {"rows": rows, "random_best": max(best_values(found.control), default=0.0)}

    def tasks(self, tasks: TaskSet, functions: Functions | None, checkpoint: Path) -> dict[str, Any]:
        """Elicitation on tasks."""
        part = tasks.cut(self.config.n_tasks, self.config.n_tasks)
        found = elicit(
            self.loaded, part, task_config(self.config), functions, None,
            titled(self.tell, "tasks: {}"), checkpoint,
        )  # fmt: skip
        forget(checkpoint)
        return found.to_dict()


def chosen(bank: VectorBank, most: int, tag: str | None = None) -> list[int]:
    """The vectors to look at closer, best first: of an annotated bank those that act (with a tag), else the largest."""
    if bank.annotations:
        return strongest(bank.annotations, tag)[:most]
    return bank.objective.argsort(descending=True, stable=True)[:most].tolist()


def _direction(d: Direction) -> dict[str, Any]:
    examples = [
        {"text": e.text, "before": "".join(e.pieces[: e.at]), "place": e.pieces[e.at], "mark": e.mark,
         "after": "".join(e.pieces[e.at + 1 :]), "value": e.value / d.spread}
        for e in d.examples
    ]  # fmt: skip
    return {"sign": d.sign, "label": d.label, "examples": examples}
