"""Requests to the Hub that fail: sent again while that may help, else explained in one line, without any token."""

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from melbo.errors import HubError

ATTEMPTS = 4
"""How often a request is sent while the Hub is busy or a connection breaks."""
PAUSE = 1.0
"""Seconds before the second attempt; doubled for each further one."""
MAX_PAUSE = 60.0
"""Longest wait that the Hub may ask for."""
_BUSY = (408, 429, 500, 502, 503, 504)
_BROKEN = {"RemoteProtocolError", "ReadError", "ReadTimeout"}
_UNREACHABLE = {"ConnectError", "ConnectTimeout", "ProxyError", "PoolTimeout"}
T = TypeVar("T")


def attempt(
    request: Callable[[], T], repo: str, token: str | bool | None, revision: str | None, *, once: bool = False
) -> T:
    """The request's result; sent again while the Hub is busy or the connection breaks.

    Raises:
        HubError: it failed for good.
    """
    retrying = Retrying(
        retry=retry_if_exception(lambda error: _pause(error, 1) is not None),
        wait=lambda state: _pause(_error_of(state), state.attempt_number) or 0.0,
        stop=stop_after_attempt(1 if once else ATTEMPTS),
        reraise=True,
    )
    try:
        return retrying(request)
    except HubError:
        raise
    except (HTTPError, OSError, ValueError) as error:
        raise HubError(_explain(error, repo, revision, token)) from error


def _error_of(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()


def _pause(error: BaseException | None, number: int) -> float | None:
    """Seconds to wait after attempt `number`; None: trying again is of no use."""
    if isinstance(error, HubError) or not isinstance(error, (HTTPError, OSError, ValueError)):
        return None
    response = _response(error)
    if response is None:
        return PAUSE * 2 ** (number - 1) if _broken(error) else None
    if response.status_code not in _BUSY:
        return None
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), MAX_PAUSE) if asked.isdecimal() else PAUSE * 2 ** (number - 1)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _response(error: BaseException) -> Any:
    """The Hub's answer that caused the error, if it answered."""
    return next((e.response for e in _chain(error) if isinstance(e, HfHubHTTPError)), None)


def _broken(error: BaseException) -> bool:
    """Whether the connection broke while data came, or the data was of the wrong length."""
    return bool(_kinds(error) & _BROKEN) or "Consistency check" in str(error)


def _kinds(error: BaseException) -> set[str]:
    """Names of the types of the error and of what caused it; huggingface_hub's HTTP library may be httpx or httpx2."""
    return {type(e).__name__ for e in _chain(error)}


def endpoint() -> str:
    """The Hub's address, without a name and password that HF_ENDPOINT may hold."""
    parts = urlsplit(constants.ENDPOINT)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _explain(error: BaseException, repo: str, revision: str | None, token: str | bool | None) -> str:
    """One line for people: what failed and what to do."""
    chain = list(_chain(error))
    response = _response(error)
    status = None if response is None else response.status_code
    where = endpoint()

    def caused_by(*kinds: type[BaseException]) -> bool:
        return any(isinstance(e, kinds) for e in chain)

    if caused_by(GatedRepoError):
        return f"{repo!r} is gated: accept its terms on its page at {where}, then log in with `hf auth login`."
    if caused_by(RevisionNotFoundError):
        return f"{repo!r} has no revision {revision or 'main'!r}; name a branch, tag or commit that it has."
    if status == 403:
        return f"{where} refuses access to {repo!r} (403): use a token that may write there, of that account."
    if status == 401 or caused_by(RepositoryNotFoundError):
        return (
            f"there is no repository {repo!r} at {where}, or it is private and the token does not open it: check the "
            "name, and log in with `hf auth login` or set HF_TOKEN."
        )
    if caused_by(IncompleteSnapshotError) or (status is None and caused_by(LocalEntryNotFoundError)):
        return (
            f"{repo!r} at {revision or 'main'!r} is not complete in the cache, and {where} cannot be reached or is "
            "switched off; connect, unset HF_HUB_OFFLINE, or use a folder."
        )
    if caused_by(OfflineModeIsEnabled):
        return f"{where} is not asked for {repo!r}, since HF_HUB_OFFLINE is set; unset it, then try again."
    if status is None and _kinds(error) & _UNREACHABLE:
        return (
            f"there is no connection to {where} ({short(error, token)}); check the network, a proxy (HTTPS_PROXY) and "
            "HF_ENDPOINT, then try again."
        )
    if status is not None:
        advice = "wait, then try again" if status in _BUSY else "check the name and the token"
        return f"{where} answered {status} for {repo!r}: {short(error, token)}; {advice}."
    return f"the transfer of {repo!r} failed: {short(error, token)}; try again."


def short(error: BaseException, token: str | bool | None = None) -> str:
    """The error's text in one line of at most 200 characters, without tokens or an address's password."""
    text = " ".join(str(error).split())
    if isinstance(token, str) and token:
        text = text.replace(token, "***")
    text = re.sub(r"hf_[A-Za-z0-9]{8,}|(?<=//)[^/@\s]+(?=@)", "***", text)
    return (text if len(text) <= 200 else text[:197] + "...").rstrip(".") or type(error).__name__
