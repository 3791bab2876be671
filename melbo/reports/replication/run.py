"""A study from start to report. Each stage stores its result in the study's folder and is taken from there next time.

study.json          what decides the results: settings, model, bank
bank/               the bank with its annotations and its R sweep, as on the Hub
experiments/*.json  one finding each
report.html, report.md, plots/*.png
"""

from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from melbo.annotation.annotate import HARMFUL, HARMLESS, annotate
from melbo.bank.annotation import write_annotation
from melbo.bank.vector_bank import VectorBank
from melbo.discovery.discover import discover
from melbo.errors import BankError, ConfigError
from melbo.measure.behaviour_judge import BehaviourJudge, judge_key
from melbo.measure.coherence import CoherenceScale
from melbo.measure.embeddings import DEFAULT_EMBEDDER, Embedder, load_embedder
from melbo.models.identity import run_key
from melbo.models.load import LoadedModel
from melbo.prompts import Message, chat
from melbo.radius_sweep.config import SweepConfig
from melbo.radius_sweep.plot import plot_sweep
from melbo.radius_sweep.result import FILE_NAME, Sweep, load_sweep
from melbo.radius_sweep.sweep import run_sweep
from melbo.reports.replication.experiments import experiments, run_experiment
from melbo.reports.replication.finding import Finding
from melbo.reports.replication.presets import StudyConfig
from melbo.reports.replication.report import write_report
from melbo.runs.checkpoint import Checkpoint
from melbo.runs.digest import content_digest, value_digest
from melbo.runs.progress import OnProgress, titled
from melbo.steering.generate import Sampling

KEY_FILE = "study.json"


class Study:
    """One study in one folder. Its stages run when they are first asked for.

    Args:
        config: settings.
        folder: new, empty, or of the same study, which then goes on.
        bank: the bank to study; None: one is trained.
        embedder: sentence embeddings; None: the default of `load_embedder`.
        progress: told of each stage by its message. An exception from it cancels, and the study can be run again to go
            on.
        judge: of the model's known behaviours; None: it has none.

    Raises:
        ConfigError: the folder holds something else, or another study.
        BankError: the bank is of another model, or has no prompt.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        config: StudyConfig,
        folder: str | Path,
        bank: VectorBank | None = None,
        embedder: Embedder | None = None,
        progress: OnProgress | None = None,
        judge: BehaviourJudge | None = None,
    ) -> None:
        self.loaded, self.folder, self.given, self.judge = loaded, Path(folder), bank, judge
        self._embedder, self._progress = embedder, progress
        if bank is not None:
            bank.check_fits(loaded)
            if not bank.prompts:
                raise BankError("the bank has no prompt, so nothing tells what it was trained on; train another one.")
            config = replace(config, discovery=bank.config)
        self.config = replace(config, discovery=config.discovery.resolve(loaded.n_layers, loaded.d_model))
        self._claim()

    def _claim(self) -> None:
        """Write study.json, or check that the one there is of this study."""
        given = {"embedder": self.embedder_name, "bank": _content(self.given), "judge": judge_key(self.judge)}
        key = run_key(self.loaded, asdict(self.config), [], **given)
        other = f"{self.folder} holds another study"
        claim = Checkpoint(self.folder / KEY_FILE, key, ConfigError, other, "choose a new folder")
        if claim.load(lambda _: True):
            return
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise ConfigError(f"{self.folder} holds other files and no {KEY_FILE}; choose a new folder.")
        claim.save({"format": "melbo-study", "format_version": 2}, indent=2)

    @property
    def embedder_name(self) -> str:
        """Of the embedder, without loading it."""
        return DEFAULT_EMBEDDER if self._embedder is None else self._embedder.name

    @cached_property
    def embedder(self) -> Embedder:
        """Sentence embeddings of completions."""
        return self._embedder or load_embedder()

    @cached_property
    def bank(self) -> VectorBank:
        """The bank, given or trained, with its annotations."""
        place = self.folder / "bank"
        bank = VectorBank.load(place) if place.is_dir() else self._start_bank(place)
        if not _annotated(bank):
            checkpoint = self.folder / ".annotate.checkpoint.json"
            bank = annotate(
                self.loaded, bank, _prompts(bank), self.config.scales, self.embedder,
                titled(self._progress, "annotating"), checkpoint, judge=self.judge, n_control=self.config.n_control,
                max_new_tokens=self.config.max_new_tokens,
            )  # fmt: skip
            bank.save(place)
            checkpoint.unlink(missing_ok=True)
        return bank

    def _start_bank(self, place: Path) -> VectorBank:
        if self.given is not None:
            self.given.save(place)
            return self.given
        checkpoint = self.folder / ".train.checkpoint.safetensors"
        prompts = [chat(self.config.prompt, self.config.system)]
        bank = discover(
            self.loaded, self.config.discovery, prompts,
            titled(self._progress, "training"), checkpoint,
        )  # fmt: skip
        bank.save(place)
        checkpoint.unlink(missing_ok=True)
        return bank

    @cached_property
    def sweep(self) -> Sweep:
        """The R sweep with the bank's own config: stored here, beside the bank that was given, or run now."""
        place = self.folder / "bank" / FILE_NAME
        bank = self.bank
        sampling = Sampling(max_new_tokens=self.config.sweep_tokens)
        config = SweepConfig(bank.config, self.config.radii, self.config.unit, self.config.sweep_vectors, sampling)
        config = config.resolve(self.loaded.n_layers, self.loaded.d_model)
        source = self.given.source.folder if self.given and self.given.source else None
        places = (place, *([source / FILE_NAME] if source else []))
        stored = [load_sweep(path) for path in places if path.is_file()]
        found = next((s for s in stored if s.complete and self._is_mine(s, config)), None)
        checkpoint = self.folder / ".sweep.checkpoint.json"
        if found is None:
            found = run_sweep(
                self.loaded, config, bank.prompts, self.embedder,
                titled(self._progress, "R sweep: {}"), checkpoint, bank, self.judge,
            )  # fmt: skip
        found.save(place)
        checkpoint.unlink(missing_ok=True)
        plot_sweep(found, place.with_suffix(".png"))
        return found

    def _is_mine(self, sweep: Sweep, config: SweepConfig) -> bool:
        """Whether a stored sweep is the one that would be run."""
        told = (sweep.config, sweep.prompts, sweep.base_model, sweep.dtype, sweep.embedder)
        model = self.bank.base_model
        return told == (config, self.bank.prompts, model, str(self.loaded.model.dtype), self.embedder_name)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """One for each experiment."""
        found: list[Finding] = []
        scale = CoherenceScale.from_dict(self.bank.details["annotation"]["coherence_scale"])
        for experiment in experiments(self.bank):
            path = self.folder / "experiments" / f"{experiment.name}.json"
            if not path.is_file():
                checkpoint = path.with_name(f".{experiment.name}.checkpoint.json")
                result = run_experiment(
                    self.loaded, self.bank, experiment, self.config, self.embedder, scale, found[0] if found else None,
                    titled(self._progress, experiment.title.lower()), checkpoint, self.judge,
                )  # fmt: skip
                result.save(path)
                checkpoint.unlink(missing_ok=True)
            found.append(Finding.load(path))
        return tuple(found)

    def report(self) -> Path:
        """Run what is not yet done and write the report; the path of its HTML file."""
        return write_report(self.folder, self.bank, self.sweep, self.findings)


def _content(bank: VectorBank | None) -> Any:
    """What a study takes from a bank that is given, as JSON values."""
    if bank is None:
        return None
    told = value_digest([bank.prompts, [write_annotation(note) for note in bank.annotations], bank.details])
    return {"vectors": content_digest(bank.vectors), "prompts and annotations": told}


def _prompts(bank: VectorBank) -> list[list[Message]]:
    """The bank's own, two that models refuse and two that they answer."""
    own = list(bank.prompts[0])
    system = next((m["content"] for m in own if m["role"] == "system"), None)
    return [own, *(p for user in (*HARMFUL, *HARMLESS) if (p := chat(user, system)) != own)]


def _annotated(bank: VectorBank) -> bool:
    """Whether `melbo annotate` has been over the bank."""
    settings: Any = bank.details.get("annotation")
    return bool(bank.annotations) and isinstance(settings, dict) and "coherence_scale" in settings
