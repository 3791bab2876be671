"""Requests to a server that speaks OpenAI's chat completions: retries, a budget, and a key that shows up nowhere.

429, 5xx, time-outs, cut connections and answers that are not JSON are retried with growing pauses. Redirects are
refused: they would hand the key to another server. Errors carry the server's own message, without the key in it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from melbo.errors import JudgeError

_MAX_BYTES = 2**20
_LONGEST_PAUSE = 60.0
_BYTES_A_TOKEN = 3


@dataclass(frozen=True)
class JudgeLimits:
    """How much a judge may cost, and how long it may take."""

    max_requests: int = 2000
    """HTTP requests of one client, retries included."""
    max_tokens: int = 1_000_000
    """Prompt and answer tokens as the server counts them; 3 bytes of text each where it does not."""
    attempts: int = 5
    """Tries of one request."""
    timeout: float = 60.0
    """Seconds without a byte from the server."""
    pause: float = 1.0
    """Seconds before the first retry; doubles each time. The server's Retry-After goes first; both at most 60."""

    def __post_init__(self) -> None:
        for name in ("max_requests", "max_tokens", "attempts"):
            if getattr(self, name) < 1:
                raise JudgeError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not self.timeout > 0 or not self.pause >= 0:
            raise JudgeError(f"timeout is {self.timeout} and pause {self.pause}; give positive numbers of seconds.")


class BadRequestError(JudgeError):
    """The server does not take this request (400 or 422), but may take another."""


class _Retry(Exception):
    """This try failed in a way that may pass."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


class ChatClient:
    """One server and its key, with a count of what was spent.

    Raises:
        JudgeError: the base URL is not plain http(s), or the key cannot be put into a header.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        limits: JudgeLimits,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not _is_plain_http(base_url):
            raise JudgeError(
                "the judge's base URL must be http(s)://host[:port]/path without a user name; "
                "set MELBO_JUDGE_BASE_URL, for example to https://api.openai.com/v1."
            )
        if api_key is not None and not re.fullmatch(r"[\x21-\x7e]+", api_key):
            raise JudgeError("the judge's API key is empty or holds spaces or other characters; set it again.")
        self._url, self._key, self._limits, self._sleep = (
            f"{base_url.rstrip('/')}/chat/completions",
            api_key,
            limits,
            sleep,
        )
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(headers=headers, timeout=limits.timeout, follow_redirects=False)
        self.requests = 0
        """Sent so far, retries included."""
        self.tokens = 0
        """Used so far."""

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """The server's answer to a chat completion request.

        Raises:
            BadRequestError: status 400 or 422.
            JudgeError: another refusal, no good answer after all attempts, or the budget is spent.
        """
        wait = self._limits.pause
        for attempt in range(1, self._limits.attempts + 1):
            try:
                return self._try(body)
            except _Retry as failure:
                if attempt == self._limits.attempts:
                    raise JudgeError(
                        f"the judge gave no answer in {attempt} attempts; the last one: {failure}. Try again later."
                    ) from None
                self._sleep(min(_LONGEST_PAUSE, wait if failure.pause is None else failure.pause))
                wait *= 2
        raise AssertionError("unreachable")

    def _try(self, body: dict[str, Any]) -> dict[str, Any]:
        content = json.dumps(body).encode()
        self._check_budget(len(content) // _BYTES_A_TOKEN)
        self.requests += 1
        try:
            with self._http.stream(
                "POST", self._url, content=content, headers={"Content-Type": "application/json"}
            ) as response:
                status, headers, raw = response.status_code, response.headers, _read(response)
        except httpx.RequestError as error:  # time-outs, refused and cut connections, broken compression
            raise _Retry(self._clean(f"{type(error).__name__} {error}")) from None
        if status != 200:
            self._refuse(status, headers, raw)
        try:
            answer = json.loads(raw)
            if not isinstance(answer, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError):
            raise _Retry("its answer is not JSON") from None
        self.tokens += _tokens_used(answer, (len(content) + len(raw)) // _BYTES_A_TOKEN)
        return answer

    def _check_budget(self, next_tokens: int) -> None:
        limits = self._limits
        if self.requests >= limits.max_requests:
            raise JudgeError(f"the judge's budget of {limits.max_requests} requests is spent; raise max_requests.")
        if self.tokens + next_tokens > limits.max_tokens:
            raise JudgeError(
                f"the judge's budget of {limits.max_tokens} tokens does not hold the next request: {self.tokens} are "
                f"used, about {next_tokens} more needed; raise max_tokens."
            )

    def _refuse(self, status: int, headers: httpx.Headers, raw: bytes) -> None:
        """Raise what a status other than 200 means."""
        said = self._clean(raw.decode("utf-8", "replace"))
        if status in (408, 409, 429) or status >= 500:
            raise _Retry(f"status {status}: {said}", _seconds(headers.get("Retry-After")))
        if 300 <= status < 400:
            raise JudgeError(
                "the judge's server answers with a redirect; set MELBO_JUDGE_BASE_URL to its final address."
            )
        if status in (401, 403):
            raise JudgeError(f"the judge refuses the API key (status {status}); set MELBO_JUDGE_API_KEY.")
        if status in (400, 422):
            raise BadRequestError(f"the judge does not take the request (status {status}): {said}")
        raise JudgeError(f"the judge answers with status {status}: {said} Check base URL and model.")

    def _clean(self, text: str) -> str:
        """One short line, without the key: servers repeat a wrong one in their message."""
        if self._key:
            text = text.replace(self._key, "***")
        return " ".join(text.split())[:300]


def _is_plain_http(url: str) -> bool:
    """Whether httpx can send to it, and nothing secret is in it."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parts.scheme in ("http", "https") and bool(parts.host) and not parts.userinfo and (parts.port or 80) < 2**16


def _read(response: httpx.Response) -> bytes:
    """The body, as far as the first MiB."""
    raw = b""
    for chunk in response.iter_bytes():
        raw += chunk
        if len(raw) > _MAX_BYTES:
            raise JudgeError("the judge's answer is larger than 1 MiB; this is not a chat completions server.")
    return raw


def _tokens_used(answer: dict[str, Any], estimate: int) -> int:
    usage = answer.get("usage")
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return total if isinstance(total, int) and not isinstance(total, bool) and total > 0 else estimate


def _seconds(header: str | None) -> float | None:
    """A Retry-After of whole or broken seconds; dates are left to the growing pause."""
    return float(header) if header and re.fullmatch(r"\d{1,6}(\.\d{1,6})?", header) else None
