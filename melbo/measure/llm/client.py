"""Requests to a server that speaks OpenAI's chat completions: the package openai, with a budget and a hidden key.

openai retries 408, 409, 429, 5xx, time-outs, cut connections and, with the client below, answers that are not JSON. Its
pauses grow, and the server's Retry-After goes first. Redirects are refused: they would hand the key to another server.
Errors carry the server's own message, without the key in it.
"""

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from melbo.errors import JudgeError
from melbo.measure.llm.limits import BadRequestError, JudgeLimits
from melbo.runs.optional import needs

with needs("judge"):
    import httpx2
    import openai

_MAX_BYTES = 2**20
_BYTES_A_TOKEN = 3


class _Http(openai.DefaultHttpxClient):
    """Asks before each request, retries included, and reads no more than the first MiB of an answer."""

    def __init__(self, before: Callable[[int], None], timeout: float) -> None:
        super().__init__(timeout=timeout, follow_redirects=False)
        self._before = before

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        self._before(len(request.content))
        raw = b""
        response = super().send(request, **options | {"stream": True})
        try:
            for chunk in response.iter_bytes():
                raw += chunk
                if len(raw) > _MAX_BYTES:
                    raise JudgeError("the judge's answer is larger than 1 MiB; this is not a chat completions server.")
        finally:
            response.close()
        if response.status_code == 200 and not _is_object(raw):
            raise httpx2.DecodingError("its answer is not JSON", request=request)  # which openai retries
        kept = {name: response.headers[name] for name in ("retry-after", "location") if name in response.headers}
        headers = {**kept, "content-type": "application/json"}
        return httpx2.Response(response.status_code, headers=headers, content=raw, request=request)


class ChatClient:
    """One server and its key, with a count of what was spent.

    Raises:
        JudgeError: the base URL is not plain http(s), or the key cannot be put into a header.
    """

    def __init__(self, base_url: str, api_key: str | None, limits: JudgeLimits) -> None:
        if not _is_plain_http(base_url):
            raise JudgeError(
                "the judge's base URL must be http(s)://host[:port]/path without a user name; "
                "set MELBO_JUDGE_BASE_URL, for example to https://api.openai.com/v1."
            )
        if api_key is not None and not re.fullmatch(r"[\x21-\x7e]+", api_key):
            raise JudgeError("the judge's API key is empty or holds spaces or other characters; set it again.")
        self._key, self._limits = api_key, limits
        self._http = _Http(self._spend, limits.timeout)
        self._openai = openai.OpenAI(
            base_url=base_url,
            api_key=api_key or "none",  # without one it would take the environment's; `post` leaves this one out
            timeout=limits.timeout,
            max_retries=limits.attempts - 1,
            http_client=self._http,
        )
        self.requests = 0
        """Sent so far, retries included."""
        self.tokens = 0
        """Used so far."""

    def close(self) -> None:
        """Close the connection."""
        self._openai.close()

    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """The server's answer to a chat completion request.

        Raises:
            BadRequestError: status 400 or 422.
            JudgeError: another refusal, no good answer after all attempts, or the budget is spent.
        """
        before = self.requests
        headers = {} if self._key else {"Authorization": openai.Omit()}
        try:
            answer = self._openai.post("/chat/completions", cast_to=object, body=body, options={"headers": headers})
        except openai.APIConnectionError as error:  # time-outs, refused and cut connections, broken compression
            cause = error.__cause__ or error
            raise self._no_answer(before, f"{type(cause).__name__} {cause}") from None
        except openai.APIStatusError as error:
            raise self._refusal(before, error.status_code, error.response.text) from None
        assert isinstance(answer, dict)
        self.tokens += _tokens_used(answer, (len(json.dumps(body)) + len(json.dumps(answer))) // _BYTES_A_TOKEN)
        return answer

    def _spend(self, size: int) -> None:
        """Count a request of `size` bytes, or raise JudgeError where the budget does not hold it."""
        limits, next_tokens = self._limits, size // _BYTES_A_TOKEN
        if self.requests >= limits.max_requests:
            raise JudgeError(f"the judge's budget of {limits.max_requests} requests is spent; raise max_requests.")
        if self.tokens + next_tokens > limits.max_tokens:
            raise JudgeError(
                f"the judge's budget of {limits.max_tokens} tokens does not hold the next request: {self.tokens} are "
                f"used, about {next_tokens} more needed; raise max_tokens."
            )
        self.requests += 1

    def _no_answer(self, before: int, reason: str) -> JudgeError:
        tries = self.requests - before
        return JudgeError(
            f"the judge gave no answer in {tries} attempts; the last one: {self._clean(reason)}. Try again later."
        )

    def _refusal(self, before: int, status: int, said: str) -> JudgeError:
        """What a status other than 200 means."""
        said = self._clean(said)
        if status in (408, 409, 429) or status >= 500:
            return self._no_answer(before, f"status {status}: {said}")
        if 300 <= status < 400:
            return JudgeError(
                "the judge's server answers with a redirect; set MELBO_JUDGE_BASE_URL to its final address."
            )
        if status in (401, 403):
            return JudgeError(f"the judge refuses the API key (status {status}); set MELBO_JUDGE_API_KEY.")
        if status in (400, 422):
            return BadRequestError(f"the judge does not take the request (status {status}): {said}")
        return JudgeError(f"the judge answers with status {status}: {said} Check base URL and model.")

    def _clean(self, text: str) -> str:
        """One short line, without the key: servers repeat a wrong one in their message."""
        if self._key:
            text = text.replace(self._key, "***")
        return " ".join(text.split())[:300]


def _is_plain_http(url: str) -> bool:
    """Whether requests can be sent to it, and nothing secret is in it."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc


def _is_object(raw: bytes) -> bool:
    try:
        return isinstance(json.loads(raw), dict)
    except (ValueError, RecursionError):
        return False


def _tokens_used(answer: dict[str, Any], estimate: int) -> int:
    usage = answer.get("usage")
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return total if isinstance(total, int) and not isinstance(total, bool) and total > 0 else estimate
