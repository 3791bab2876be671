"""One line where long work or its result shows: how far it is, what it found, or that there is nothing yet."""

from typing import Any

from markupsafe import Markup

from melbo.app.jobs.event import JobEvent
from melbo.app.render import render


def progress_html(event: JobEvent[Any, Any]) -> Markup:
    """What is being done, how much of it, and a bar."""
    percent = 100 * event.done / event.total if event.total else 0
    return render("widgets/progress", text=event.phase[:1].upper() + event.phase[1:] + event.place, percent=percent)


def status_html(text: str, lead: str = "") -> Markup:
    """What came of it; `lead` is bold and comes first."""
    return render("widgets/status", text=text, lead=lead)


def empty_html(text: str, command: str = "") -> Markup:
    """What there would be, and the command that makes it."""
    return render("widgets/empty", text=text, command=command)
