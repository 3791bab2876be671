"""How the app looks, and the arguments that every launch of it needs. System fonts only: nothing is fetched."""

from __future__ import annotations

from typing import Any

import gradio as gr

SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

CSS = """
.gradio-container { max-width: 1180px !important; width: 100% !important; margin: 0 auto !important; }
#intro h1 { font-size: 1.5rem; font-weight: 700; margin: 0; }
#intro p { margin: .25rem 0 0; line-height: 1.5; }
#intro .facts { color: var(--body-text-color-subdued); font-size: .875rem; }
#note { margin: -.5rem 0; }
#note p { margin: 0; color: var(--body-text-color-subdued); font-size: .875rem; overflow-wrap: anywhere; }
#panes .column { gap: .35rem; }
.pane-head { display: flex; align-items: baseline; gap: .6rem; min-width: 0; }
.pane-head b { flex: none; }
.pane-head span { color: var(--body-text-color-subdued); font-size: .875rem; min-width: 0;
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.pane-head.steered b { color: var(--primary-600); }
.dark .pane-head.steered b { color: var(--primary-400); }
#steered { border: 2px solid var(--primary-500) !important; }
.pane .top-panel { display: none; } /* clears one pane alone */
.pane .message-content .md { white-space: pre-wrap; overflow-wrap: anywhere; }
#examples { gap: .5rem; }
#examples button { flex: 0 1 auto; }
#ask { gap: .5rem; align-items: flex-end; }
#ask #message { flex: 1 1 300px; }
#ask button { flex: 0 1 auto; }
footer .divider { display: none; }
@media (max-width: 640px) {
  .gradio-container > main { padding: .75rem !important; }
  #control, #scale, #vector, #ask #message { flex-basis: 100% !important; }
  #steering { order: 1; } /* answers first: they should show without scrolling past the controls */
  #settings { order: 2; }
  #ask button { flex: 1 1 0; padding-left: .5rem; padding-right: .5rem; }
}
"""


def theme() -> gr.themes.Base:
    """Grey, with violet for the steered side and the button that sends; small text stays readable in both modes."""
    return gr.themes.Base(primary_hue="violet", neutral_hue="slate", font=SANS, font_mono=MONO).set(
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        color_accent_soft="*neutral_100",
        border_color_accent_subdued="*neutral_300",
        border_color_accent_subdued_dark="*neutral_600",
    )


def launch_options() -> dict[str, Any]:
    """Keyword arguments for `demo.launch`."""
    return {
        "theme": theme(),
        "css": CSS,
        "show_error": False,
        "footer_links": ["api", "gradio"],
        "run_history": False,
        "enable_monitoring": False,
        "max_file_size": "1mb",
        "ssr_mode": False,
    }
