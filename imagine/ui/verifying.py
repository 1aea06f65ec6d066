"""The page "Verify": give any picture, read what its marks say. Nothing is kept."""

from __future__ import annotations

import json
from html import escape

from imagine.core import Recipe
from imagine.provenance import Provenance
from imagine.ui.desk import note
from imagine.ui.imagining import recipe_html
from imagine.ui.studio import Origin
from imagine.ui.words import Words

_KEYS = {
    Provenance.UNTOUCHED: ("verify.untouched", "good"),
    Provenance.STRIPPED: ("verify.stripped", "plain"),
    Provenance.EDITED: ("verify.edited", "plain"),
    Provenance.NOT_OURS: ("verify.not_ours", "plain"),
    Provenance.FORGED: ("verify.forged", "bad"),
}


def intro_html(words: Words) -> str:
    """What this page is for, and where a file goes in."""
    return f"""
<h2>{escape(words("verify.heading"))}</h2>
<p class="lead">{escape(words("verify.intro"))}</p>
<div class="drop" data-drop="verify">
  <p><strong>{escape(words("verify.drop"))}</strong></p>
  <p class="row">
    <input type="file" id="verify-file" class="offscreen" tabindex="-1"
      aria-label="{escape(words("verify.choose"))}" accept="image/png,image/jpeg,image/webp">
    <button type="button" data-js="choose" data-for="verify-file">
      {escape(words("verify.choose"))}</button>
  </p>
</div>"""


def origin_html(origin: Origin, words: Words) -> str:
    """The answer, its reasons, and the recipe inside."""
    key, kind = _KEYS[origin.report.verdict]
    said = [note(words(key), kind)]
    if origin.report.says_generated:
        said.append(f"<p>{escape(words('verify.generated'))}</p>")
    reasons = "".join(f"<li>{escape(sentence)}</li>" for sentence in origin.report.sentences)
    said.append(f'<ul class="reasons" lang="en">{reasons}</ul>')
    if origin.recipe is None:
        said.append(f"<p>{escape(words('verify.no_recipe'))}</p>")
    else:
        said.append(f"<p>{escape(words('verify.recipe'))}</p>{recipe_html(origin.recipe, words)}")
        said.append(_recall_html(origin.recipe, words))
    return f'<section class="card origin">{"".join(said)}</section>'


def _recall_html(recipe: Recipe, words: Words) -> str:
    """Puts the recipe into the form; done by the script, since a file belongs to no session."""
    facts = {
        "prompt": recipe.prompt,
        "seed": str(recipe.seed),
        "steps": str(recipe.num_inference_steps),
        "guidance": f"{recipe.guidance_scale:g}",
        "likeness": f"{100 * recipe.likeness:.0f}",
        "shape": recipe.aspect_ratio,
    }
    return (
        '<p class="row"><button type="button" class="small second" data-js="use-recipe" '
        f'data-recipe="{escape(json.dumps(facts))}">{escape(words("picture.recall"))}</button></p>'
    )
