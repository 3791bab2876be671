"""lens.json: the logit lens of one bank at one or more sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from melbo.bank.result_file import base_model, checked, items, number, read_result, text, whole, write_result
from melbo.bank.results import FORMATS, LENS
from melbo.inspect.lens.logit_lens import Lens, LensReport, LensSite, Token

FORMAT = FORMATS[LENS]


def save_lens(reports: Sequence[LensReport], path: Path) -> Path:
    """Write JSON; the reports are of one bank, each of another site, at least one."""
    first = asdict(reports[0])
    sites = [{k: v for k, v in asdict(report).items() if k not in ("bank", "model")} for report in reports]
    return write_result(path, FORMAT, {"bank": first["bank"], "model": first["model"], "sites": sites})


def load_lens(path: Path) -> tuple[LensReport, ...]:
    """Inverse of `save_lens`.

    Raises:
        CorpusError: no such file, damaged, or of another format.
    """
    raw = read_result(path, FORMAT)
    with checked(path):
        bank, model = text(raw["bank"]), base_model(raw["model"])
        found = tuple(
            LensReport(
                bank, model, _site(site["site"]), items(site["rows"], _row), number(site["random_best"]),
                number(site["random_most"]),
            )
            for site in raw["sites"]
        )  # fmt: skip
        if not found or len({report.site for report in found}) < len(found):
            raise ValueError("no site, or one twice")
    return found


def _site(value: Any) -> LensSite:
    if value not in get_args(LensSite):
        raise ValueError(f"a site {repr(value)[:60]}")
    return value


def _row(raw: dict[str, Any]) -> Lens:
    sign = whole(raw["sign"], -1)
    if sign not in (1, -1):
        raise ValueError(f"a sign of {sign}")
    return Lens(
        whole(raw["index"]), text(raw["label"]), sign, items(raw["promoted"], _token), items(raw["suppressed"], _token)
    )


def _token(raw: dict[str, Any]) -> Token:
    return Token(whole(raw["id"]), text(raw["text"]), number(raw["value"]))
