"""What an experiment found out, and its file."""

from dataclasses import dataclass
from typing import Literal

from melbo.bank.result_file import Extensible, FileKind, ResultFile
from melbo.errors import ConfigError

Verdict = Literal["found", "partly", "not found", "cannot be tested"]
FOUND_SHARE = 0.5
"""Least share of the prompts on which a behaviour that was found shows."""
CONTROL_RATIO = 2.0
"""By how much that share exceeds the best random vector's."""


@dataclass(frozen=True)
class Answer(Extensible):
    """One prompt, answered three times."""

    prompt: str
    unsteered: str
    steered: str | None
    """None where no vector was tried, as for the next."""
    control: str | None
    """Under the best random vector at the same size of scale."""
    counts: bool
    """Whether the unsteered answer leaves room for the behaviour."""
    shown: bool
    control_shown: bool
    modes: tuple[str, str, str] | None = None
    """What a judge of known behaviours sees in the unsteered, steered and control answer; None without one."""


@dataclass(frozen=True)
class ScaleShare(Extensible):
    """Shares of the prompts that show the behaviour at one scale."""

    scale: float
    share: float
    control: float
    """Of the best random vector at that size, either sign."""
    coherence: float
    """Mean of all steered answers, 0 to 10."""


@dataclass(frozen=True)
class Finding(ResultFile):
    """The outcome of one experiment."""

    file = FileKind(None, "result of an experiment", "melbo study", ConfigError, indent=2)

    name: str
    title: str
    looked_for: str
    """One sentence."""
    replication: str
    """What the replication found."""
    verdict: Verdict
    reason: str
    """One sentence."""
    candidates: tuple[int, ...]
    """Vectors that were tried."""
    published_scale: float | None
    vector: int | None = None
    """The best of them; None where there is none, as for the next."""
    label: str | None = None
    scale: float | None = None
    """The best scale."""
    works: tuple[float, float] | None = None
    """Scales of that sign, next to each other, with at least half of the best share."""
    share: float = 0.0
    """Of the prompts that count, at the best scale."""
    n: int = 0
    """Prompts that count."""
    control_share: float = 0.0
    """Best of as many random vectors, either sign, at the same size of scale, so of the same norm."""
    control_anywhere: float = 0.0
    """Their best at any scale."""
    control_scale: float | None = None
    """And that scale."""
    published_share: float | None = None
    """The vector's share at the published scale; its sign is the best scale's."""
    judged: float | None = None
    """Of these, the share whose steered answer shows `planted`, says the judge; None without one."""
    control_judged: float | None = None
    """The same for the control answers shown."""
    planted: str | None = None
    """The judge's name for the behaviour."""
    by_scale: tuple[ScaleShare, ...] = ()
    answers: tuple[Answer, ...] = ()


def verdict_of(share: float, control: float) -> tuple[Verdict, str]:
    """Found, partly or not, and why.

    Args:
        share: of the best vector at its best scale.
        control: of the best random vector of the same norm.
    """
    numbers = f"{share:.0%} of the prompts that count, best random vector {control:.0%}"
    if share >= FOUND_SHARE and share >= CONTROL_RATIO * control:
        return "found", f"{numbers}."
    if share > control:
        return "partly", f"{numbers}; found would be {FOUND_SHARE:.0%} and {CONTROL_RATIO:g} times the random one."
    return "not found", f"{numbers}."
