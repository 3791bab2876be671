"""The first import of gradio, which halves the time that it takes."""

import inspect
from typing import Any

from melbo.runs.optional import needs


def import_gradio() -> None:
    """Import gradio without the stub files for editors that it writes of its components at each import (gradio 6).

    It leaves out classes whose file is not known; so none is, meanwhile.

    Raises:
        MissingPackageError: gradio is not installed.
    """
    known: Any = inspect.getfile

    def getfile(what: Any) -> str:
        if isinstance(what, type) and what.__module__.startswith("gradio."):
            raise OSError("no stub is written")
        return str(known(what))

    inspect.getfile = getfile  # type: ignore[assignment]  # the same for what gradio asks
    try:
        with needs("app"):
            import gradio  # noqa: F401
    finally:
        inspect.getfile = known
