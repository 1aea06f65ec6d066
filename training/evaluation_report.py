"""The evaluation on paper: JSON for machines, a Markdown table and a contact sheet for people."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from imagine.core import ImageArray
from imagine.errors import OutputNotWritten
from training.held_out import HeldOutWish

if TYPE_CHECKING:
    from training.evaluation import PersonResult

SHEET_PEOPLE = 8
CELL = 256
LIKENESS_COLUMNS = {
    "face_found": "face found",
    "face_found_at_once": "found at once",
    "auc": "AUC",
    "tar_at_far_1": "TAR at FAR 1 %",
    "auc_where_found": "AUC where found",
    "auc_look_alikes": "AUC among look-alikes",
    "genuine_distance": "distance to self",
    "impostor_distance": "to others",
    "copy_paste": "copy-paste",
    "near_copies": "near copies",
}


def write_report(
    out: Path,
    summary: Mapping[str, Any],
    results: Sequence[PersonResult],
    wishes: Sequence[HeldOutWish],
) -> None:
    """Write `evaluation.json`, `evaluation.md` and `sheet.png` into a folder.

    Raises:
        OutputNotWritten: the disk refused.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(_without_nan(summary), indent=1)
        (out / "evaluation.json").write_text(text + "\n", encoding="utf-8")
        (out / "evaluation.md").write_text(markdown(summary), encoding="utf-8")
        Image.fromarray(contact_sheet(results, wishes)).save(out / "sheet.png")
    except OSError as error:
        raise OutputNotWritten(
            f"The report could not be written to {out} ({error.strerror}). "
            "Name another folder with --out."
        ) from error


def markdown(summary: Mapping[str, Any]) -> str:
    """The tables, with a sentence on how to read each."""
    rows = summary["rows"]
    settings = ", ".join(f"{k} {v}" for k, v in summary.get("settings", {}).items())
    parts = [
        f"{summary['people']} held-out people x {len(summary['prompts'])} held-out prompts"
        f"{': ' + settings if settings else ''}.",
        "## Likeness",
        _table(
            ["", *LIKENESS_COLUMNS.values()],
            [[name, *(_figure(row.get(key)) for key in LIKENESS_COLUMNS)]
             for name, row in rows.items()],
        ),
        "Judged by dlib, which conditioned nothing: distance to the fused embedding of the "
        "person's selfies. A picture without a face loses every genuine comparison and is no "
        "impostor. Look-alikes share skin tone, age band and sex. Floor: made of somebody else, "
        "so its AUC where found should be 0.5 and its AUC half the share of faces found. "
        "Ceiling: a true render of that person in that scene. Copy-paste: 1 returns a selfie, 0 "
        "is as near to a photo it was not given.",
    ]  # fmt: skip
    if any(row.get("prompt") for row in rows.values()):
        parts += ["## Prompt accuracy", _prompt_table(summary), _PROMPT_NOTE]
    parts += ["## By group", _group_table(summary["groups"])]
    parts.append(f"Selfies refused on the way in: {_figure(summary['selfies_refused'])}.")
    return "\n\n".join(parts) + "\n"


_PROMPT_NOTE = (
    "Share of pictures in which the attribute judge's likeliest class is one that was asked for; "
    "no face counts as wrong. Floor: the same pictures held against another prompt. The judge's "
    "own accuracy is its mean recall over classes on true renders of people it did not learn from."
)


def _prompt_table(summary: Mapping[str, Any]) -> str:
    rows = {name: row["prompt"] for name, row in summary["rows"].items() if row.get("prompt")}
    rows["judge's own accuracy"] = summary["judge_accuracy"]
    names = [name for name in next(iter(rows.values())) if name != "mean"] + ["mean"]
    lines = [[row, *(_figure(shares.get(name)) for name in names)] for row, shares in rows.items()]
    return _table(["", *(name.replace("_", " ") for name in names)], lines)


def _group_table(groups: Mapping[str, Mapping[str, Any]]) -> str:
    kinds = [kind for kind in ("generated", "ceiling") if kind in next(iter(groups.values()))]
    head = ["group", "people"]
    head += [f"{kind} {name}" for kind in kinds for name in ("face found", "AUC", "TAR", "prompt")]
    lines = []
    for name, figures in groups.items():
        line = [name.replace("_", " "), str(figures["people"])]
        for kind in kinds:
            row = figures[kind]
            values = (row["face_found"], row["auc"], row["tar_at_far_1"], row["prompt"].get("mean"))
            line += [_figure(value) for value in values]
        lines.append(line)
    return _table(head, lines)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _figure(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def _without_nan(value: Any) -> Any:
    """JSON has no nan."""
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 5)
    return value


def contact_sheet(results: Sequence[PersonResult], wishes: Sequence[HeldOutWish]) -> ImageArray:
    """Per person: a selfie and the pictures made; below, the true pictures of the same scenes."""
    header = Image.new("RGB", (CELL * (len(wishes) + 1), 60), "white")
    pen = ImageDraw.Draw(header)
    for column, wish in enumerate(wishes):
        pen.multiline_text(
            (CELL * (column + 1) + 3, 2), textwrap.fill(wish.prompt, 32), "black", font_size=14
        )
    bands = [np.asarray(header)]
    blank = np.full((CELL, CELL, 3), 255, np.uint8)
    for result in results[:SHEET_PEOPLE]:
        selfie = _cell(result.person.selfie)
        for pictures in (result.generated, result.true):
            if pictures:
                bands.append(np.concatenate([selfie, *(_cell(p.image) for p in pictures)], axis=1))
                selfie = blank
    return np.concatenate(bands)


def _cell(image: ImageArray) -> ImageArray:
    if image.shape[:2] == (CELL, CELL):
        return image
    return np.asarray(Image.fromarray(image).resize((CELL, CELL), Image.Resampling.BOX))
