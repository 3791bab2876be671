"""How the app looks, and the arguments that every launch of it needs. System fonts only: nothing is fetched."""

import os
from typing import Any

import gradio as gr

from melbo.app.render import page_styles, script

SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def theme() -> gr.themes.Base:
    """Grey, with violet for the steered side and the button that sends; small text stays readable in both modes."""
    return gr.themes.Base(primary_hue="violet", neutral_hue="slate", radius_size="lg", font=SANS, font_mono=MONO).set(
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        checkbox_border_color="*neutral_400",
        checkbox_border_color_dark="*neutral_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_large_text_weight="500",
        button_large_text_size="*text_md",
        button_large_padding="*spacing_md *spacing_xl",
        color_accent_soft="*neutral_100",
        border_color_accent_subdued="*neutral_300",
        border_color_accent_subdued_dark="*neutral_600",
    )


SESSIONS = 256
"""Visitors whose state is kept; each takes about 0.5 MB, and beyond them the one seen longest ago starts anew."""


def launch_options() -> dict[str, Any]:
    """Keyword arguments for `demo.launch`. MELBO_MCP=1 adds an MCP server, which needs `pip install gradio[mcp]`."""
    return {
        "theme": theme(),
        "js": script("page"),
        "css_paths": page_styles(),
        "show_error": False,
        "footer_links": ["api", "gradio"],
        "run_history": False,
        "enable_monitoring": False,
        "max_file_size": "8mb",
        "state_session_capacity": SESSIONS,
        "ssr_mode": False,
        "mcp_server": os.environ.get("MELBO_MCP") == "1",
    }
