"""The look of Gradio's own controls: our colours and the fonts of the system, light and dark.

Everything else of the look is in `look/page.css`, which uses the same tokens.
"""

from __future__ import annotations

import gradio as gr

# token -> (light, dark); every pair that carries text has a contrast of 4.5 or more.
TOKENS = {
    "paper": ("#f6f4ef", "#12171a"),
    "surface": ("#ffffff", "#1b2226"),
    "sunken": ("#efece5", "#151b1e"),
    "line": ("#d9d4c8", "#334046"),
    "line-strong": ("#7d7a70", "#74858c"),
    "ink": ("#1d2427", "#e9eeec"),
    "muted": ("#565e5c", "#a9b6b4"),
    "accent": ("#0f5e59", "#84d6c8"),
    "accent-strong": ("#0a4743", "#a5e6da"),
    "on-accent": ("#ffffff", "#06231f"),
    "accent-soft": ("#dcecea", "#1d3a38"),
    "good": ("#1d6338", "#8fd6a4"),
    "good-soft": ("#e1f0e5", "#1b3324"),
    "some": ("#7a4a00", "#f0c079"),
    "some-soft": ("#f8ecd6", "#3a2d18"),
    "bad": ("#a1262a", "#ffa39c"),
    "bad-soft": ("#fae3e1", "#40211f"),
}

# Two ovals, the second dashed: you, and you as imagined.
MARK = (
    '<svg class="mark-of-house" viewBox="0 0 40 32" aria-hidden="true">'
    '<ellipse cx="14" cy="17" rx="9" ry="12"/>'
    '<ellipse class="imagined" cx="26" cy="15" rx="9" ry="12"/></svg>'
)
# As a data address, so that no further request is made.
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 40 40' fill='none' "
    "stroke-width='3.500'%3E%3Crect width='40' height='40' rx='9' fill='%230f5e59'/%3E"
    "%3Cellipse cx='16' cy='21' rx='8' ry='11' stroke='white'/%3E%3Cellipse cx='25' cy='19' rx='8' "
    "ry='11' stroke='%2384d6c8' stroke-dasharray='4 3.200'/%3E%3C/svg%3E"
)

_SANS = (
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "Noto Sans",
    "DejaVu Sans",
    "sans-serif",
)
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "DejaVu Sans Mono", "monospace")

# Gradio's variable -> our token.
_CONTROLS = {
    "body_background_fill": "paper",
    "body_text_color": "ink",
    "body_text_color_subdued": "muted",
    "background_fill_primary": "surface",
    "background_fill_secondary": "sunken",
    "border_color_primary": "line",
    "border_color_accent": "accent",
    "color_accent_soft": "accent-soft",
    "link_text_color": "accent",
    "link_text_color_hover": "accent-strong",
    "link_text_color_visited": "accent",
    "link_text_color_active": "accent-strong",
    "block_background_fill": "surface",
    "block_border_color": "line",
    "block_label_text_color": "ink",
    "block_title_text_color": "ink",
    "block_info_text_color": "muted",
    "input_background_fill": "surface",
    "input_background_fill_focus": "surface",
    "input_background_fill_hover": "surface",
    "input_border_color": "line-strong",
    "input_border_color_focus": "accent",
    "input_border_color_hover": "accent",
    "input_placeholder_color": "muted",
    "checkbox_background_color": "surface",
    "checkbox_background_color_selected": "accent",
    "checkbox_border_color": "line-strong",
    "checkbox_border_color_selected": "accent",
    "checkbox_label_background_fill": "surface",
    "checkbox_label_background_fill_hover": "accent-soft",
    "checkbox_label_background_fill_selected": "accent",
    "checkbox_label_border_color": "line-strong",
    "checkbox_label_text_color": "ink",
    "checkbox_label_text_color_selected": "on-accent",
    "slider_color": "accent",
    "button_primary_background_fill": "accent",
    "button_primary_background_fill_hover": "accent-strong",
    "button_primary_text_color": "on-accent",
    "button_primary_text_color_hover": "on-accent",
    "button_primary_border_color": "accent",
    "button_secondary_background_fill": "surface",
    "button_secondary_background_fill_hover": "accent-soft",
    "button_secondary_text_color": "ink",
    "button_secondary_text_color_hover": "ink",
    "button_secondary_border_color": "line-strong",
}


def theme() -> gr.themes.Base:
    """Gradio's theme in our tokens; fonts by name only, so that none is fetched."""
    chosen: dict[str, str] = {}
    for variable, token in _CONTROLS.items():
        chosen[variable] = f"var(--{token})"
        chosen[f"{variable}_dark"] = f"var(--{token})"
    return gr.themes.Base(
        font=list(_SANS),
        font_mono=list(_MONO),
        radius_size=gr.themes.sizes.radius_md,
        text_size=gr.themes.sizes.text_lg,
    ).set(
        **chosen,
        block_border_width="0px",
        block_shadow="none",
        block_shadow_dark="none",
        input_border_width="1px",
        checkbox_label_border_width="1px",
        checkbox_label_border_width_dark="1px",
        button_primary_shadow="none",
    )


def token_css() -> str:
    """The tokens as custom properties, light first, dark under `.dark`."""
    light = "".join(f"--{name}:{values[0]};" for name, values in TOKENS.items())
    dark = "".join(f"--{name}:{values[1]};" for name, values in TOKENS.items())
    # Gradio adds `.dark` when its script starts; until then the system's wish decides.
    return (
        f":root{{{light}}}"
        f"@media (prefers-color-scheme:dark){{:root:not(:has(body.light)){{{dark}}}}}"
        f".dark{{{dark}}}"
    )
