"""What an LLM judge may cost. This module imports without the packages that the judge itself needs."""

from __future__ import annotations

from dataclasses import dataclass

from melbo.errors import JudgeError


@dataclass(frozen=True)
class JudgeLimits:
    """How much a judge may cost, and how long it may take."""

    max_requests: int = 2000
    """HTTP requests of one client, retries included."""
    max_tokens: int = 1_000_000
    """Prompt and answer tokens as the server counts them; if it does not, 3 bytes of text count as one."""
    attempts: int = 5
    """Tries of one request."""
    timeout: float = 60.0
    """Seconds without a byte from the server."""

    def __post_init__(self) -> None:
        for name in ("max_requests", "max_tokens", "attempts"):
            if getattr(self, name) < 1:
                raise JudgeError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not self.timeout > 0:
            raise JudgeError(f"timeout is {self.timeout}; give a positive number of seconds.")


class BadRequestError(JudgeError):
    """The server does not take this request (400 or 422), but may take another."""
