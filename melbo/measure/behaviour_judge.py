"""What algorithms need of a judge that knows a model's behaviours: which of them an answer shows.

Only a model whose hidden behaviours are known has one. Everything works without it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from melbo.errors import ConfigError
from melbo.models.load import LoadedModel


class BehaviourJudge(Protocol):
    """Tells which known behaviour an answer shows, without seeing the vector that made it."""

    @property
    def model(self) -> str:
        """Name of the one model that it is valid for, as in `LoadedModel.name`."""

    @property
    def labels(self) -> Mapping[str, str]:
        """The known behaviours, and how a vector that shows one is labelled: {"german": "German"}."""

    @property
    def counted(self) -> Sequence[str]:
        """Those of them that an R sweep counts."""

    def shown(self, loaded: LoadedModel, user: str, completions: Sequence[str]) -> list[str]:
        """What each answer to one user message shows: a key of `labels`, or a word for none of them."""


def check_judge(judge: BehaviourJudge | None, loaded: LoadedModel) -> None:
    """Raise ConfigError if the judge is another model's."""
    if judge is not None and judge.model != loaded.name:
        raise ConfigError(f"the judge knows the model {judge.model!r} only, not {loaded.name!r}; leave it out.")


def judge_key(judge: BehaviourJudge | None) -> Any:
    """What a run's key says of the judge, as JSON values."""
    return None if judge is None else [judge.model, dict(judge.labels), list(judge.counted)]
