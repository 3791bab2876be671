"""What an LLM judge may cost. This module imports without the packages that the judge itself needs."""

from dataclasses import dataclass

from melbo.errors import JudgeError
from melbo.runs.settings import Positive, Settings, Size


@dataclass(frozen=True)
class JudgeLimits(Settings):
    """How much a judge may cost, and how long it may take."""

    fault = JudgeError
    max_requests: Size = 2000
    """Most requests to a language model, retries included."""
    max_tokens: Size = 1_000_000
    """Prompt and answer tokens as the server counts them; if it does not, 3 bytes of text count as one."""
    attempts: Size = 5
    """Tries of one request."""
    timeout: Positive = 60.0
    """Seconds without a byte from the server."""


class BadRequestError(JudgeError):
    """The server does not take this request (400 or 422), but may take another."""
