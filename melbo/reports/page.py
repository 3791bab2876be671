"""Reports as pages: one frame and style (base.html.jinja), shared pieces (parts.html.jinja), and plots inside."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from melbo.runs.templates import templates

_ENGINE = templates(Path(__file__).parent)


def render(template: str, values: Mapping[str, Any], plots: Mapping[str, str]) -> str:
    """A report.

    Args:
        template: its path below melbo/reports/. Values in .html.jinja are escaped; .md.jinja escapes by its filters.
        values: for the template; foreign text as it is.
        plots: where each image is, by name; see `inside`.
    """
    return _ENGINE.get_template(template).render(**values, plots=plots)


def inside(images: Mapping[str, bytes]) -> dict[str, str]:
    """PNG images as data URIs, so that a page needs no file beside it."""
    return {name: f"data:image/png;base64,{base64.b64encode(image).decode()}" for name, image in images.items()}
