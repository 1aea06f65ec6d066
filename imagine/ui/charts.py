"""Charts that need nothing else: columns by day, bars by name, a range with its middle.

Shapes are small drawings that stretch with the page, words are plain text beside them, so that both
are readable on a phone. Colours are classes of the style sheet. The figures stand in a table behind
each chart (`table_html` in `sheet.py`); the chart itself is hidden from screen readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class Series:
    """One colour of a chart: its name, its class, a value for each place."""

    name: str
    tone: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Span:
    """A value with the range it may lie in, all in the unit of the chart."""

    name: str
    value: float
    low: float
    high: float


def stacked_bars(labels: Sequence[str], series: Sequence[Series]) -> str:
    """One column for each label, the series on top of each other.

    Args:
        labels: under the columns; the first, the middle and the last are written.
        series: from the bottom to the top.
    """
    totals = [sum(values) for values in zip(*(one.values for one in series), strict=True)]
    top = nice_top(max(totals, default=0))
    drawn = ['<path class="rule" d="M0 0.2H100M0 20H100"/>']
    step = 100 / max(1, len(labels))
    for place in range(len(labels)):
        bottom = 0.0
        for one in series:
            tall = 40 * one.values[place] / top
            if tall:
                drawn.append(
                    f'<rect class="tone-{one.tone}" x="{(place + 0.12) * step:.2f}" '
                    f'y="{40 - bottom - tall:.2f}" width="{0.76 * step:.2f}" height="{tall:.2f}"/>'
                )
            bottom += tall
    shown = [labels[0], labels[len(labels) // 2], labels[-1]] if len(labels) > 4 else labels
    ends = "".join(f"<span>{escape(label)}</span>" for label in shown)
    return (
        f'<div class="chart columns" aria-hidden="true"><span class="top">{top:g}</span>'
        f"{_svg(''.join(drawn), 40)}"
        f'<p class="ends">{ends}</p></div>{_legend(series)}'
    )


def named_bars(
    names: Sequence[str], values: Sequence[float], shown: Sequence[str], tone: str = "accent"
) -> str:
    """One bar for each name, the largest value at full width.

    Args:
        names: beside the bars.
        values: lengths.
        shown: the values as they are written.
        tone: colour.
    """
    top = max(values, default=0) or 1
    rows = "".join(
        f"<li><span>{escape(name)}</span>"
        + _svg(
            f'<rect class="tone-sunken" width="100" height="10"/><rect class="tone-{tone}" '
            f'width="{max(100 * value / top, 0.5):.2f}" height="10"/>',
            10,
        )
        + f"<strong>{escape(text)}</strong></li>"
        for name, value, text in zip(names, values, shown, strict=True)
    )
    return f'<ul class="chart bars" aria-hidden="true">{rows}</ul>'


def spans(found: Sequence[Span], low: float, high: float) -> str:
    """A mark with its range for each name, all on one scale from `low` to `high`."""

    def x_of(value: float) -> float:
        return 100 * (min(max(value, low), high) - low) / ((high - low) or 1)

    rows = "".join(
        f"<li><span>{escape(one.name)}</span>"
        + _svg(
            f'<rect class="tone-sunken" width="100" height="10"/><rect class="tone-muted" '
            f'x="{x_of(one.low):.2f}" y="3.5" width="{x_of(one.high) - x_of(one.low):.2f}" '
            f'height="3"/><rect class="tone-accent" x="{x_of(one.value) - 0.8:.2f}" width="1.6" '
            'height="10"/>',
            10,
        )
        + f"<strong>{one.value:.2f}</strong></li>"
        for one in found
    )
    scale = f"<li><span></span><p class='ends'><span>{low:g}</span><span>{high:g}</span></p></li>"
    return f'<ul class="chart bars" aria-hidden="true">{rows}{scale}</ul>'


def nice_top(most: float) -> float:
    """The end of an axis: 1, 2 or 5 times a power of ten, no less than `most`."""
    top = 1.0
    while top < most:
        for factor in (2.0, 2.5, 2.0):
            top *= factor
            if top >= most:
                break
    return top


def _legend(series: Sequence[Series]) -> str:
    items = "".join(
        f'<li><svg viewBox="0 0 10 10" aria-hidden="true"><rect class="tone-{one.tone}" '
        f'width="10" height="10" rx="2"/></svg>{escape(one.name)}</li>'
        for one in series
    )
    return f'<ul class="legend">{items}</ul>'


def _svg(drawn: str, height: int) -> str:
    return f'<svg viewBox="0 0 100 {height}" preserveAspectRatio="none">{drawn}</svg>'
