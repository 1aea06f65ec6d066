"""The present request as code: curl, the Python client, the client of OpenAI.

The templates are filled here, and again by the script while somebody types beside them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape
from typing import Any

from imagine.ui.words import Words

# {{name}} is a number, {{name:text}} a quoted string, {{name:shell}} one inside single quotes.
_CURL = """\
curl -sS {{base}}/v1/generations \\
  -H "Authorization: Bearer $IMAGINE_API_KEY" \\
  -H "Content-Type: application/json" \\
  -H "Prefer: wait=60" \\
  -d '{"prompt": {{prompt:shell}}, "identity": {{identity:shell}},
       "n": {{n}}, "seed": {{seed}}, "likeness": {{likeness}}}'"""
_PYTHON = """\
import os
from imagine.service.client import ImagineClient

with ImagineClient({{base:text}}, api_key=os.environ["IMAGINE_API_KEY"]) as imagine:
    result = imagine.generate(
        {{prompt:text}},
        identity={{identity:text}},
        n={{n}},
        seed={{seed}},
        likeness={{likeness}},
    )
    for number, image in enumerate(result.images):
        image.save(f"picture-{number}.png")"""
_OPENAI = """\
import base64, os
from openai import OpenAI

client = OpenAI(base_url={{base:text}} + "/v1", api_key=os.environ["IMAGINE_API_KEY"])
answer = client.images.generate(
    prompt={{prompt:text}},
    n={{n}},
    extra_body={"identity": {{identity:text}}, "seed": {{seed}}, "likeness": {{likeness}}},
)
for number, image in enumerate(answer.data):
    with open(f"picture-{number}.png", "wb") as file:
        file.write(base64.b64decode(image.b64_json))"""
TEMPLATES = {"curl": _CURL, "Python": _PYTHON, "OpenAI": _OPENAI}
_BLANK = re.compile(r"\{\{(\w+)(:\w+)?\}\}")


def filled(template: str, facts: Mapping[str, Any]) -> str:
    """A template with the facts of a request."""

    def fill(found: re.Match[str]) -> str:
        value = facts[found[1]]
        if found[2] is None:
            return str(value)
        quoted = json.dumps(str(value), ensure_ascii=False)
        return quoted.replace("'", "'\\''") if found[2] == ":shell" else quoted

    return _BLANK.sub(fill, template)


def snippets_html(base: str, request: Mapping[str, Any], words: Words) -> str:
    """The form of a request and, beside it, the same as code."""
    facts = {**request, "base": base}
    blocks = "".join(
        f"""<section><h3 id="as-{name.lower()}">{name}</h3>
<pre id="code-{name.lower()}" tabindex="0" role="region" aria-labelledby="as-{name.lower()}"
 data-template="{escape(template)}">{escape(filled(template, facts))}</pre>
<p class="row"><button type="button" class="small second" data-copy="code-{name.lower()}"
 data-done="{escape(words("office.copied"))}" aria-label="{escape(words("office.copy"))}: {name}"
>{escape(words("office.copy"))}</button></p></section>"""
        for name, template in TEMPLATES.items()
    )
    return f"""<section class="card"><h2>{escape(words("try.heading"))}</h2>
<p class="hint">{escape(words("try.intro"))}</p>
<form data-snippets><input type="hidden" name="base" value="{escape(base)}">
<label for="try-prompt">{escape(words("wish.prompt"))}</label>
<input id="try-prompt" name="prompt" value="{escape(str(facts["prompt"]))}" autocomplete="off">
<div class="fields">
{_field("identity", words("try.identity"), facts["identity"])}
{_field("n", words("wish.count"), facts["n"], 'type="number" min="1" max="8"')}
{_field("seed", words("wish.seed"), facts["seed"], 'type="number" min="0"')}
{
        _field(
            "likeness",
            words("recipe.likeness"),
            facts["likeness"],
            'type="number" min="0" max="1" step="0.05"',
        )
    }
</div></form>{blocks}
<p><a href="/reference">{escape(words("place.reference"))}</a> ·
<a href="/openapi.json">openapi.json</a></p></section>"""


def _field(name: str, label: str, value: object, more: str = "") -> str:
    return (
        f'<div><label for="try-{name}">{escape(label)}</label>'
        f'<input id="try-{name}" name="{name}" value="{escape(str(value))}" {more}></div>'
    )
