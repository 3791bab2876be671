"""How far long work is, as HTML: a line and a bar."""

from __future__ import annotations

import html
from typing import Any

from melbo.app.jobs.event import JobEvent


def progress_html(event: JobEvent[Any, Any]) -> str:
    """What is being done, how much of it, and a bar."""
    share = 100 * event.done / event.total if event.total else 0
    phase = event.phase[:1].upper() + event.phase[1:]
    return (
        f'<p class="told" role="status">{html.escape(phase + event.place)}</p>'
        f'<div class="bar" role="progressbar" aria-label="Progress" aria-valuenow="{share:.0f}" aria-valuemin="0" '
        f'aria-valuemax="100"><i style="width:{share:.1f}%"></i></div>'
    )
