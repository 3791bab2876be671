"""The Inspect tab's work: what lies beside a bank, measured live and followed step by step. No gradio."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, get_args

from melbo.app.choices import best_scale
from melbo.app.context import Context
from melbo.app.conversation import MAX_CHARACTERS
from melbo.app.jobs.event import JobEvents
from melbo.app.jobs.worker import BEAT, JobHandle, follow, watched
from melbo.app.tabs.inspect.source import CHATS, Source, make_corpus
from melbo.bank.vector_bank import VectorBank
from melbo.errors import ConfigError, PromptError, SaeError
from melbo.inspect.geometry.effects import change_rows
from melbo.inspect.geometry.similarity import Geometry, measure_geometry
from melbo.inspect.lens.logit_lens import LensReport, LensSite, logit_lens
from melbo.inspect.lens.patchscope import Descriptions, describe
from melbo.inspect.lens.token_activation import TextActivations, text_activations
from melbo.inspect.max_activating.corpus_reader import Corpus, Item
from melbo.inspect.max_activating.find import find_activating
from melbo.inspect.max_activating.report import ActivatingConfig, ActivatingReport
from melbo.inspect.sae.files import load_sae
from melbo.inspect.sae.report import SaeReport, sae_report
from melbo.inspect.stored import stored_geometry
from melbo.models.load import LoadedModel
from melbo.organism.inputs import ORGANISM, organism_contrasts, organism_corpus
from melbo.runs.progress import Progress
from melbo.steering.generate import Sampling

R = TypeVar("R")
CONTRAST_PROMPTS = 20
EXAMPLES = 6
RANDOM = 8
"""Random vectors of the control."""
LENS_TOKENS = 8
DESCRIPTION_TOKENS = 48
SITES: tuple[LensSite, ...] = ("effect", "vector")
Along = Literal["effect", "minus", "vector"]
"""What one's own text is read along: the effect of the vector, that of minus the vector, or the vector itself."""


@dataclass(frozen=True)
class Rows:
    """The change at each layer after the source layer, for each vector of a bank."""

    norms: tuple[tuple[float, ...], ...]
    """[n][layers], norm of the change per norm of the vector."""
    cosines: tuple[tuple[float, ...], ...]
    """[n][layers], cosine of the change with the vector."""


def activating_steps(
    context: Context, bank: VectorBank, index: int, source: Source
) -> JobEvents[None, ActivatingReport]:
    """Find one vector's activating examples, both signs.

    Closing the iterator stops the model, here and in all that follows.

    Raises:
        MelboError: the corpus holds nothing to read, the bank is of another model, or time is up.
    """
    bank.vector(index)

    def work(job: JobHandle[None], loaded: LoadedModel) -> ActivatingReport:
        corpus, total = make_corpus(source)
        config = ActivatingConfig(k=EXAMPLES, n_random=RANDOM)
        counted = _counted(corpus, total, "Reading " + corpus.name, job)
        return find_activating(loaded, bank, counted, config, indices=[index])

    return _follow(context, bank, work)


def sae_steps(context: Context, bank: VectorBank) -> JobEvents[None, SaeReport]:
    """Compare all vectors with the embedded model's SAE.

    Raises:
        SaeError: the bank is of another model or layer than that SAE.
    """
    if context.model(bank).name != ORGANISM:
        raise SaeError(
            "this app brings an SAE for the embedded model only; run `melbo inspect sae BANK --sae OWNER/NAME --out "
            "BANK/sae.json` and load the bank again."
        )

    def work(job: JobHandle[None], loaded: LoadedModel) -> SaeReport:
        sae = load_sae(ORGANISM, "", loaded, bank.layer)
        corpus = _counted(organism_corpus(CHATS), CHATS, "Describing features", job)
        return sae_report(loaded, bank, sae, ORGANISM, corpus=corpus)

    return _follow(context, bank, work)


def geometry_steps(context: Context, bank: VectorBank) -> JobEvents[None, tuple[Geometry | None, Rows]]:
    """Measure the bank's geometry, unless it is stored, and each vector's change at every later layer."""

    def work(job: JobHandle[None], loaded: LoadedModel) -> tuple[Geometry | None, Rows]:
        found = None
        if stored_geometry(bank) is None:
            job.report(Progress(0, 0, "Measuring effects"))
            sides = organism_contrasts(CONTRAST_PROMPTS) if loaded.name == ORGANISM else ()
            found = measure_geometry(loaded, bank, sides)
        job.report(Progress(0, 0, "Following each vector through the layers"))
        changes = change_rows(loaded, bank.vectors, bank.prompts, bank.layer, 1)
        norms, cosines = (tuple(map(tuple, changes[..., k].tolist())) for k in (0, 1))
        return found, Rows(norms, cosines)

    return _follow(context, bank, work)


def lens_steps(context: Context, bank: VectorBank, index: int) -> JobEvents[None, tuple[LensReport, ...]]:
    """One vector's logit lens, for each of SITES."""
    bank.vector(index)

    def work(_: JobHandle[None], loaded: LoadedModel) -> tuple[LensReport, ...]:
        return tuple(logit_lens(loaded, bank, site, [index], LENS_TOKENS) for site in SITES)

    return _follow(context, bank, work)


def description_steps(context: Context, bank: VectorBank, index: int) -> JobEvents[None, Descriptions]:
    """The model's own words for a vector, turned as its best scale says."""
    bank.vector(index)

    def work(_: JobHandle[None], loaded: LoadedModel) -> Descriptions:
        sampling = Sampling(max_new_tokens=min(DESCRIPTION_TOKENS, context.limits.new_tokens))
        return describe(loaded, bank, [index], scale=sign_of(bank, index), sampling=sampling)

    return _follow(context, bank, work)


def sign_of(bank: VectorBank, index: int) -> float:
    """1 or -1, as the vector's best scale."""
    return -1.0 if best_scale(bank, index) < 0 else 1.0


def read_text(
    context: Context, bank: VectorBank, index: int, text: Any, along: Any, as_chat: bool
) -> tuple[TextActivations, float]:
    """A visitor's text, and the scale at which it was read: 1 or -1.

    Raises:
        ConfigError, PromptError: the choice is unknown, or the text is empty or too long.
    """
    if along not in get_args(Along):
        raise ConfigError(f"the direction is {str(along)[:40]!r}; choose one of {', '.join(get_args(Along))}.")
    asked = str(text or "")
    if len(asked) > MAX_CHARACTERS:
        raise PromptError(f"the text has more than {MAX_CHARACTERS:,} characters; shorten it.")
    scale = -1.0 if along == "minus" else 1.0
    site: Literal["vector", "effect"] = "vector" if along == "vector" else "effect"
    with context.lock:
        return text_activations(context.model(bank), bank, index, asked, site, scale, bool(as_chat)), scale


def _counted(corpus: Corpus, total: int, phase: str, job: JobHandle[None]) -> Corpus:
    """The same corpus, which reports every BEAT seconds how many documents are read."""

    def read() -> Iterator[Item]:
        reported = 0.0
        for done, item in enumerate(corpus.read(), 1):
            job.check()
            if time.monotonic() - reported >= BEAT:
                reported = time.monotonic()
                job.report(Progress(done, total, phase))
            yield item

    return replace(corpus, read=read)


def _follow(
    context: Context, bank: VectorBank, work: Callable[[JobHandle[None], LoadedModel], R]
) -> JobEvents[None, R]:
    loaded = context.model(bank)
    return follow(lambda job: work(job, watched(loaded, job.check)), context.lock, context.limits.seconds)
