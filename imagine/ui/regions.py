"""Pieces of the page that are our own HTML: what a press in them sends, how they are bound.

The script `look/page.js` looks after all of them; here they only get their name.
"""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

# Queued, because the script may arrive later than the region.
_BIND = (
    "(window.imagineRegions = window.imagineRegions || [])"
    ".push({{name: '{name}', element, trigger, props, watch}});"
    "window.imagineBind && window.imagineBind();"
)


def region(name: str, value: Any = "", template: str = "${value}") -> gr.HTML:
    """A piece of HTML whose buttons with `data-action` and `data-id` send these to the server."""
    return gr.HTML(
        value,
        elem_id=name,
        html_template=template,
        js_on_load=_BIND.format(name=name),
        apply_default_css=False,
        elem_classes="region",
    )


def button(action: str, id: str, label: str, kind: str = "", **attributes: str) -> str:
    """A button that sends `action` and `id`."""
    more = "".join(f' {name.replace("_", "-")}="{escape(v)}"' for name, v in attributes.items())
    return (
        f'<button type="button" class="small {kind}" data-action="{action}" '
        f'data-id="{escape(id)}"{more}>{escape(label)}</button>'
    )
