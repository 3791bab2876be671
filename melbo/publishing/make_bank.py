"""From a model to a bank that can be shared, in one go: found, annotated, swept, looked into, with its card.

Each phase leaves its result in a folder beside the bank, so that a stopped run goes on where it was.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from melbo.annotation.annotate import annotate
from melbo.bank.result_file import GEOMETRY, LENS
from melbo.bank.save import replaceable
from melbo.bank.vector_bank import VectorBank
from melbo.config import DiscoveryConfig
from melbo.discovery.discover import discover
from melbo.discovery.usable_scale import with_usable_scale
from melbo.errors import BankError
from melbo.inspect.geometry.similarity import measure_geometry
from melbo.inspect.lens.logit_lens import logit_lens, save_lens
from melbo.measure.behaviour_judge import BehaviourJudge
from melbo.measure.coherence import CoherenceScale, calibrate_coherence
from melbo.measure.embeddings import Embedder, load_embedder
from melbo.models.identity import run_key
from melbo.models.load import LoadedModel
from melbo.prompts import Message
from melbo.publishing.publish import save_with_card
from melbo.radius_sweep.config import SweepConfig
from melbo.radius_sweep.plot import plot_sweep
from melbo.radius_sweep.result import FILE_NAME
from melbo.radius_sweep.sweep import run_sweep
from melbo.runs.checkpoint import difference
from melbo.runs.files import read_json, write_json
from melbo.runs.progress import OnProgress, Progress, notify
from melbo.steering.generate import Sampling

RADII = (0.5, 0.75, 1.0, 1.5)
"""Of the sweep, as multiples of the bank's R."""
SWEEP_VECTORS, ANSWER_TOKENS = 8, 32
T = TypeVar("T")
COSTS = {"calibrating": 3, "finding vectors": 32, "labelling": 45, "sweeping R": 17, "looking inside": 3}
"""Shares of the time that the phases take, in percent, measured on SmolLM2 with 64 vectors."""


@dataclass(frozen=True)
class Made:
    """A bank that was made, and how long each phase took in this run, in seconds."""

    bank: VectorBank
    folder: Path
    seconds: dict[str, float]


def make_bank(
    loaded: LoadedModel,
    config: DiscoveryConfig,
    prompts: Sequence[Sequence[Message]],
    out: Path,
    progress: OnProgress | None = None,
    *,
    embedder: Embedder | None = None,
    judge: BehaviourJudge | None = None,
) -> Made:
    """Make a bank in the folder `out`; run again after a stop, it goes on.

    Args:
        config: of the discovery.
        prompts: conversations to find the vectors on.
        progress: called with (thousandths done, 1000) and the phase; an exception from it cancels.
        judge: names behaviours that it knows; None: there is no such judge of this model.

    Raises:
        BankError: `out` holds other files, or an unfinished run with other settings lies beside it.
        ConfigError, PromptError, TrainingError, MetricError: as the phases' own functions.
    """
    out = out.absolute()
    if out.exists() and not replaceable(out):
        raise BankError(f"{out} holds other files and is not a bank; choose a new folder.")
    work = _Work(out, run_key(loaded, config.to_dict(), prompts))
    phases = _Phases(progress)
    embed = embedder or load_embedder()

    def found(tell: OnProgress) -> VectorBank:
        bank = discover(loaded, config, prompts, tell, work.file("discover.safetensors"), coherence_scale=coherent)
        return with_usable_scale(loaded, bank, tell, coherent)

    def calibrated() -> CoherenceScale:
        return calibrate_coherence(loaded, seed=config.seed, sampling=Sampling(ANSWER_TOKENS))

    coherent = phases.run("calibrating", lambda _: work.coherence_scale(calibrated))
    bank = phases.run("finding vectors", lambda tell: work.bank("found", lambda: found(tell)))
    labelled = phases.run(
        "labelling",
        lambda tell: work.bank(
            "labelled",
            lambda: annotate(
                loaded,
                bank,
                embedder=embed,
                progress=tell,
                checkpoint=work.file("answers.json"),
                judge=judge,
                max_new_tokens=ANSWER_TOKENS,
                coherence_scale=coherent,
            ),
        ),
    )
    phases.run("sweeping R", lambda tell: _sweep(loaded, labelled, embed, judge, coherent, work, tell))
    phases.run("looking inside", lambda tell: _inspect(loaded, labelled, work, tell))
    folder = save_with_card(VectorBank.load(work.place("labelled")), out)
    work.delete()
    return Made(VectorBank.load(folder), folder, phases.seconds)


def _sweep(
    loaded: LoadedModel,
    bank: VectorBank,
    embedder: Embedder,
    judge: BehaviourJudge | None,
    coherent: CoherenceScale,
    work: "_Work",
    tell: OnProgress,
) -> None:
    place = work.place("labelled")
    if (place / FILE_NAME).exists() and (place / "sweep.png").exists():
        return
    own = bank.radius / bank.mean_residual_norm
    config = SweepConfig(
        base=bank.config,
        radii=tuple(round(own * factor, 4) for factor in RADII),
        n_vectors=min(SWEEP_VECTORS, loaded.d_model - 1),
        sampling=Sampling(ANSWER_TOKENS),
    )
    messages = [list(p) for p in bank.prompts]
    found = run_sweep(
        loaded, config, messages, embedder, tell, work.file("sweep.json"), None, judge, coherence_scale=coherent
    )
    found.save(place / FILE_NAME)
    plot_sweep(found, place / "sweep.png")


def _inspect(loaded: LoadedModel, bank: VectorBank, work: "_Work", tell: OnProgress) -> None:
    place = work.place("labelled")
    acting = [i for i, note in enumerate(bank.annotations) if not note.is_dud] or list(range(len(bank)))
    if not (place / GEOMETRY).exists():
        measure_geometry(loaded, bank, ()).save(place / GEOMETRY)
    notify(tell, 1, 2, "reading the vectors' tokens")
    if not (place / LENS).exists():
        save_lens([logit_lens(loaded, bank, site, acting) for site in ("effect", "vector")], place / LENS)
    notify(tell, 2, 2, "reading the vectors' tokens")


class _Work:
    """The folder beside the bank that keeps what is done.

    Raises:
        BankError: it is of a run with other settings.
    """

    def __init__(self, out: Path, key: dict[str, object]) -> None:
        self._folder = out.with_name(f".{out.name}.make")
        place = self._folder / "run.json"
        if place.exists():
            before = read_json(place)
            if before != key:
                raise BankError(
                    f"{self._folder} is of an unfinished run with other settings ({difference(before, key)}); use the "
                    "same to go on, or delete that folder to start anew."
                )
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        write_json(place, key)

    def place(self, name: str) -> Path:
        """Folder of a phase's bank."""
        return self._folder / name

    def file(self, name: str) -> Path:
        """Checkpoint of a phase."""
        return self._folder / name

    def bank(self, name: str, make: Callable[[], VectorBank]) -> VectorBank:
        """A phase's bank, made and saved unless it is there."""
        place = self.place(name)
        if not place.exists():
            made = make()
            replace(made, source=None).save(place)
        return VectorBank.load(place)

    def coherence_scale(self, make: Callable[[], CoherenceScale]) -> CoherenceScale:
        """The model's, found once for all phases."""
        place = self.file("coherence_scale.json")
        if not place.exists():
            write_json(place, asdict(make()))
        return CoherenceScale.from_dict(read_json(place))

    def delete(self) -> None:
        """Remove it, once the bank is saved."""
        shutil.rmtree(self._folder)


class _Phases:
    """One bar over all phases."""

    def __init__(self, progress: OnProgress | None) -> None:
        self._progress, self._before = progress, 0.0
        self.seconds: dict[str, float] = {}

    def run(self, name: str, work: Callable[[OnProgress], T]) -> T:
        """Do a phase; what it tells moves the bar within its share."""
        start, cost = time.monotonic(), COSTS[name] * 10.0
        furthest = 0.0

        def tell(step: Progress) -> None:
            nonlocal furthest
            furthest = max(furthest, step.done / step.total if step.total else 0.0)
            message = f"{name}: {step.message}" if step.message else name
            notify(self._progress, round(self._before + cost * min(1.0, furthest)), 1000, message, step.value)

        tell(Progress(0, 1))
        done = work(tell)
        self._before += cost
        self.seconds[name] = time.monotonic() - start
        return done
