"""What reviewers see beside single reviews: queues, clocks, approvals, cases, figures, the log."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from html import escape
from importlib import resources
from typing import Any

from imagine.service.review_figures import ReviewFigures, review_figures
from imagine.service.wiring import Service
from imagine.storage.acts import POLICY_CLAUSES, Act, ActKind, Reason
from imagine.storage.audit_check import Verification
from imagine.storage.audit_log import AuditLog
from imagine.storage.cases import CaseContents
from imagine.storage.reviews import Queue, Review
from imagine.storage.takedowns import Notice
from imagine.ui.charts import Series, Span, named_bars, spans, stacked_bars
from imagine.ui.sheet import table_html
from imagine.ui.words import Words

_TABS = ("", "takedowns", "approvals", "cases", "figures", "audit")
_TONES = {
    Queue.TAKEDOWN: "bad",
    Queue.APPEAL: "some",
    Queue.REPORT: "good",
    Queue.BORDERLINE: "accent",
    Queue.BLOCKED: "strong",
    Queue.RANDOM: "muted",
}
_HOURS = 3600
_FAR = datetime.max.replace(tzinfo=UTC)


def tabs_html(here: str, words: Words) -> str:
    """The reviewers' pages; `here` is one of them, or "-" for another page."""
    names = ("queues", *_TABS[1:])
    links = []
    for tab, name in zip(_TABS, names, strict=True):
        current = ' aria-current="page"' if tab == here else ""
        href = f"/review/{tab}" if tab else "/review"
        links.append(f'<a href="{href}"{current}>{escape(words(f"review.{name}"))}</a>')
    return (
        f'<nav class="tabs" aria-label="{escape(words("review.heading"))}">{"".join(links)}</nav>'
    )


def back_html(words: Words) -> str:
    """The way back from a refusal."""
    return f"{tabs_html('-', words)}<p><a href='/review'>{escape(words('office.back'))}</a></p>"


def overview_html(service: Service, tenant_id: str, queue: Queue | None, words: Words) -> str:
    """How the queues stand, and what waits longest."""
    now = datetime.now(UTC)
    facts = service.reviews.queues(tenant_id)
    figures = "".join(
        f'<li><strong>{one.waiting}</strong><span><a href="/review?queue={one.queue.value}">'
        f"{escape(words(f'queue.{one.queue.value}'))}</a>"
        f"{_late(one.overdue, words)}</span></li>"
        for one in facts
    )
    waiting = by_urgency(service.reviews.find(tenant_id, queue, limit=50))
    items = "".join(_item_html(one, now, words) for one in waiting)
    name = words("review.all") if queue is None else words(f"queue.{queue.value}")
    begin = f"/review/next?queue={queue.value}" if queue else "/review/next"
    start = ""
    if waiting:
        start = (
            f'<p class="row"><a class="small" href="{begin}" data-key="n" data-begin>'
            f"{escape(words('review.begin'))}<kbd>N</kbd></a></p>"
        )
    shown = f'<ul class="queue">{items}</ul>' if items else _nothing(words)
    return f"""{tabs_html("", words)}<ul class="figures">{figures}</ul>
<h2>{escape(name)}</h2>{start}{shown}"""


def takedowns_html(service: Service, tenant_id: str, words: Words) -> str:
    """Notices with their clocks."""
    now = datetime.now(UTC)
    rows = []
    for one in service.takedowns.find(tenant_id):
        about = service.reviews.find(tenant_id, Queue.TAKEDOWN, (), takedown_id=one.id)
        links = " ".join(
            f'<a href="/review/{review.id}">{number}</a>' for number, review in enumerate(about, 1)
        )
        rows.append(
            [
                f"<code>{escape(one.id)}</code>",
                escape(moment(one.created_at)),
                clock_html(one.due_at, now, words),
                f"{one.matches}",
                f"{one.removed}",
                links,
                f'<form method="post" action="/review/takedowns/{escape(one.id)}/contact">'
                f'<button class="small second">{escape(words("review.contact"))}</button></form>',
            ]
        )
    heads = ("id", "came", "due", "matches", "removed", "reviews", "contact_head")
    names = [words(f"review.head.{name}") for name in heads]
    table = table_html(names, rows, words("review.takedowns"))
    intro = f'<p class="hint">{escape(words("review.takedowns_intro"))}</p>'
    return f"{tabs_html('takedowns', words)}{intro}{table or _nothing(words)}"


def contact_html(notice: Notice, words: Words) -> str:
    """All of a notice, to answer whoever sent it."""
    return f"""{tabs_html("-", words)}<section class="card narrow">
<p class="hint">{escape(words("review.contact_hint"))}</p><dl class="facts">
<dt>{escape(words("report.name"))}</dt><dd>{escape(notice.name)}</dd>
<dt>{escape(words("report.contact"))}</dt><dd>{escape(notice.contact)}</dd></dl>
<blockquote>{escape(notice.statement)}</blockquote></section>"""


def approvals_html(waiting: Sequence[Act], actor: str, words: Words) -> str:
    """Acts that wait for a second reviewer."""
    rows = []
    for act in waiting:
        approve = f'<span class="muted">{escape(words("review.your_own"))}</span>'
        if act.asked_by != actor:
            approve = (
                f'<form method="post" action="/review/approvals/{escape(act.id)}">'
                f'<button class="small">{escape(words("review.approve"))}</button></form>'
            )
        target = f"<code>{escape(act.target_id)}</code>"
        if act.kind is not ActKind.COLLECT and act.target_id.startswith("review"):
            target = f'<a href="/review/{escape(act.target_id)}">{target}</a>'
        rows.append(
            [
                escape(words(f"act.{act.kind.value}")),
                target,
                f"{escape(words(f'reason.{act.reason.value}'))} ({escape(act.clause)})",
                f"<code>{escape(act.asked_by)}</code>",
                escape(moment(act.expires_at)),
                approve,
            ]
        )
    heads = [words(f"review.head.{name}") for name in ("act", "target", "why", "by", "until", "do")]
    table = table_html(heads, rows, words("review.approvals"))
    intro = f'<p class="hint">{escape(words("review.approvals_intro"))}</p>'
    return f"{tabs_html('approvals', words)}{intro}{table or _nothing(words)}"


def cases_html(cases: Sequence[Act], actor: str, words: Words) -> str:
    """Cases by number, and the form that opens one."""
    now = datetime.now(UTC)
    rows = []
    for case in cases:
        mine = actor in (case.asked_by, case.approved_by)
        state, kind = words("case.waiting"), "some"
        link = ""
        if case.may_be_done(now):
            state, kind = words("case.open"), "good"
            link = f'<a href="/review/cases/{case.id}">{escape(words("case.look"))}</a>'
        elif case.expires_at <= now:
            state, kind = words("case.over"), "plain"
        rows.append(
            [
                escape(case.number or ""),
                f"<code>{escape(case.target_id)}</code>",
                f"{escape(words(f'reason.{case.reason.value}'))} ({escape(case.clause)})",
                f"<code>{escape(case.asked_by)}</code>",
                f'<span class="badge {kind}">{escape(state)}</span>',
                link if mine else "",
            ]
        )
    heads = [words(f"review.head.{n}") for n in ("number", "whom", "why", "by", "state", "do")]
    table = table_html(heads, rows, words("review.cases"))
    reasons = "".join(
        f'<option value="{reason.value}">{escape(words(f"reason.{reason.value}"))}</option>'
        for reason in Reason
    )
    clauses = "".join(
        f'<option value="{number}">{number} {escape(text)}</option>'
        for number, text in POLICY_CLAUSES.items()
    )
    return f"""{tabs_html("cases", words)}
<p class="hint">{escape(words("case.intro"))}</p>{table or _nothing(words)}
<section class="card narrow"><h2>{escape(words("case.new"))}</h2>
<form method="post" action="/review/cases">
<label for="identity">{escape(words("review.head.whom"))}</label>
<input id="identity" name="identity" required maxlength="64" pattern="[A-Za-z0-9_\\-]+"
 placeholder="identity_..." autocomplete="off">
<label for="reason">{escape(words("review.head.why"))}</label>
<select id="reason" name="reason">{reasons}</select>
<label for="clause">{escape(words("case.clause"))}</label>
<select id="clause" name="clause" lang="en">{clauses}</select>
<p class="row"><button>{escape(words("case.ask"))}</button></p></form></section>"""


def case_html(contents: CaseContents, may_export: bool, words: Words) -> str:
    """Everything ever made of an identity."""
    case = contents.act
    pictures = "".join(
        f'<figure class="picture"><img src="/review/cases/{case.id}/pictures/{one.id}" '
        f'alt="{escape(words("review.picture_alt"))}" width="256" height="256" loading="lazy">'
        f"<figcaption>{escape(moment(one.made_at))}"
        f"{' · ' + escape(words('case.withheld')) if one.is_withheld else ''}</figcaption></figure>"
        for one in contents.pictures
    )
    jobs = [
        [f"<code>{escape(job.id)}</code>", escape(job.state), escape(moment(job.created_at))]
        for job in contents.jobs
    ]
    reviews = [
        [
            f'<a href="/review/{one.id}">{escape(words(f"queue.{one.queue.value}"))}</a>',
            escape(words(f"review.state.{one.state.value}")),
            escape(moment(one.created_at)),
        ]
        for one in contents.reviews
    ]
    entries = [
        [f"{one.sequence}", f"<code>{escape(str(one.facts['kind']))}</code>",
         escape(str(one.facts["time"])[:16])]
        for one in contents.entries
    ]  # fmt: skip
    export = f"""<form method="post" action="/review/cases/{case.id}/evidence">
<button class="small second">{escape(words("review.evidence_ask"))}</button></form>"""
    if may_export:
        export = (
            f'<a class="small" href="/review/cases/{case.id}/evidence.zip" download>'
            f"{escape(words('review.evidence_get'))}</a>"
        )
    id_head, state, came = (words(f"review.head.{name}") for name in ("id", "state", "came"))
    queue = words("review.head.queue")
    parts = (
        (words("case.jobs"), table_html([id_head, state, came], jobs, words("case.jobs"))),
        (
            words("case.reviews"),
            table_html([queue, state, came], reviews, words("case.reviews")),
        ),
        (words("case.entries"), table_html(["#", id_head, came], entries, words("case.entries"))),
    )
    told = "".join(
        f'<section class="card"><h2>{escape(name)}</h2>{table or _nothing(words)}</section>'
        for name, table in parts
    )
    return f"""{tabs_html("-", words)}<p class="hint">{escape(words("case.logged"))}</p>
<div class="decide">{export}</div>
<div class="pictures">{pictures}</div>{told}"""


def figures_html(service: Service, tenant_id: str, words: Words) -> str:
    """The dashboard: looked at rather than read; the figures stand behind each chart."""
    found = review_figures(service.database, tenant_id)
    return (
        f"{tabs_html('figures', words)}{_numbers_html(found, words)}"
        f'<div class="grid">{_volume_html(found, words)}{_reasons_html(found, words)}'
        f"{_times_html(found, words)}{_rulings_html(found, words)}</div>"
        f"{fairness_html(_evaluation(service), words)}"
    )


def fairness_html(evaluation: Mapping[str, Any], words: Words) -> str:
    """Likeness and failure rates by group, as the evaluation measured them."""
    groups: Mapping[str, Any] = evaluation["groups"]
    names = [name.replace("_", " ") for name in groups]
    made = [one["generated"] for one in groups.values()]
    error = [1.96 * one.get("auc_standard_error", 0.0) for one in made]
    likeness = spans(
        [
            Span(name, one["auc"], one["auc"] - wide, min(1.0, one["auc"] + wide))
            for name, one, wide in zip(names, made, error, strict=True)
        ],
        0.5,
        1.0,
    )
    lost = [1 - one["face_found"] for one in made]
    failures = named_bars(names, lost, [f"{100 * value:.0f} %" for value in lost], "some")
    rows = [
        [
            escape(name),
            f"{group['people']}",
            f"{group['generated']['auc']:.2f}",
            f"{group['ceiling']['auc']:.2f}",
            f"{100 * (1 - group['generated']['face_found']):.0f} %",
        ]
        for name, group in zip(names, groups.values(), strict=True)
    ]
    heads = [words(f"fair.head.{name}") for name in ("group", "people", "auc", "ceiling", "lost")]
    table = table_html(heads, rows, words("fair.heading"))
    return f"""<section class="card"><h2>{escape(words("fair.heading"))}</h2>
<p>{escape(words("fair.intro", date=str(evaluation.get("made", ""))))}</p>
<div class="grid" lang="en"><div><h3>{escape(words("fair.likeness"))}</h3>{likeness}</div>
<div><h3>{escape(words("fair.lost"))}</h3>{failures}</div></div>
<details><summary>{escape(words("usage.table"))}</summary>{table}</details></section>"""


def audit_html(log: AuditLog, found: Verification | None, words: Words) -> str:
    """Health of the audit log, and the button that checks every entry."""
    checkpoint = log.checkpoint()
    told = ""
    if found is not None:
        kind = "good" if found.is_intact else "bad"
        key = "audit.intact" if found.is_intact else "audit.broken"
        said = words(key, count=found.size, first=found.first_bad)
        told = f'<p class="note {kind}" role="status">{escape(said)}</p>'
        if not found.is_intact:
            told += f'<p lang="en">{escape(found.finding)}</p>'
    return f"""{tabs_html("audit", words)}{told}
<section class="card"><p>{escape(words("audit.intro"))}</p><dl class="facts">
<dt>{escape(words("audit.size"))}</dt><dd>{checkpoint.size}</dd>
<dt>{escape(words("audit.root"))}</dt><dd><code>{checkpoint.root.hex()}</code></dd>
<dt>{escape(words("audit.key"))}</dt><dd><code>{escape(str(log.verifier_key))}</code></dd></dl>
<form method="post" action="/review/audit"><p class="row">
<button data-key="v">{escape(words("audit.verify"))}<kbd>V</kbd></button></p></form></section>"""


def by_urgency(reviews: Sequence[Review]) -> list[Review]:
    """What has a time first, the nearest time first; the rest by age."""
    return sorted(reviews, key=lambda one: (one.due_at or _FAR, one.created_at))


def clock_html(due_at: datetime, now: datetime, words: Words) -> str:
    """How much time is left, or how long it has been over."""
    seconds = (due_at - now).total_seconds()
    hours, minutes = divmod(abs(int(seconds)) // 60, 60)
    key, kind = ("clock.left", "good") if seconds > 0 else ("clock.over", "bad")
    if 0 < seconds < 12 * _HOURS:
        kind = "some"
    said = words(key, hours=hours, minutes=f"{minutes:02d}")
    return (
        f'<time datetime="{due_at.isoformat()}"><span class="badge {kind}">{escape(said)}'
        "</span></time>"
    )


def moment(when: datetime) -> str:
    """A moment in UTC, to the minute."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M}"


def _item_html(review: Review, now: datetime, words: Words) -> str:
    clock = clock_html(review.due_at, now, words) if review.due_at else moment(review.created_at)
    state = ""
    if review.state.value == "needs_second":
        state = f'<span class="badge some">{escape(words("review.state.needs_second"))}</span>'
    return (
        f'<li><a href="/review/{review.id}"><strong>'
        f"{escape(words(f'queue.{review.queue.value}'))}</strong>"
        f"<code>{escape(review.reason)}</code>{state}"
        f'<span class="when">{clock}</span></a></li>'
    )


def _late(count: int, words: Words) -> str:
    if not count:
        return ""
    return f' <span class="badge bad">{escape(words("review.late", count=count))}</span>'


def _nothing(words: Words) -> str:
    return f'<p class="muted">{escape(words("office.none"))}</p>'


def _numbers_html(found: ReviewFigures, words: Words) -> str:
    stopped = sum(found.refused_prompts.values()) + sum(found.held_back.values())
    share = f"{100 * stopped / found.asked:.1f} %" if found.asked else "\u2013"
    came = sum(sum(days) for days in found.queued.values())
    figures = (
        (f"{came}", words("figures.came")),
        (f"{found.decided}", words("figures.decided")),
        (f"{found.late}", words("figures.late")),
        (f"{found.asked}", words("figures.asked")),
        (share, words("figures.stopped")),
    )
    items = "".join(
        f"<li><strong>{escape(value)}</strong><span>{escape(name)}</span></li>"
        for value, name in figures
    )
    return f'<ul class="figures">{items}</ul>'


def _volume_html(found: ReviewFigures, words: Words) -> str:
    labels = [f"{day:%d.%m.}" for day in found.days]
    series = [
        Series(words(f"queue.{queue.value}"), _TONES[queue], found.queued[queue]) for queue in Queue
    ]
    rows = [
        [f"{day:%Y-%m-%d}", *(f"{found.queued[queue][place]}" for queue in Queue)]
        for place, day in enumerate(found.days)
        if any(found.queued[queue][place] for queue in Queue)
    ]
    heads = [words("usage.day"), *(one.name for one in series)]
    chart = stacked_bars(labels, series)
    return _chart(words("figures.volume"), chart, heads, rows, words)


def _reasons_html(found: ReviewFigures, words: Words) -> str:
    counts = {
        **{f"{words('figures.prompt')}: {k}": n for k, n in found.refused_prompts.items()},
        **{f"{words('figures.picture')}: {k}": n for k, n in found.held_back.items()},
    }
    ranked = sorted(counts.items(), key=lambda item: -item[1])[:12]
    names, values = [name for name, _ in ranked], [float(count) for _, count in ranked]
    asked = found.asked or 1
    shown = [f"{count:.0f} ({100 * count / asked:.1f} %)" for count in values]
    rows = [[escape(name), escape(text)] for name, text in zip(names, shown, strict=True)]
    heads = [words("review.head.why"), words("figures.share")]
    return _chart(
        words("figures.reasons"), named_bars(names, values, shown, "bad"), heads, rows, words
    )


def _times_html(found: ReviewFigures, words: Words) -> str:
    names = [words(f"queue.{queue.value}") for queue in found.minutes]
    values = list(found.minutes.values())
    shown = [_span(minutes) for minutes in values]
    rows = [[escape(name), text] for name, text in zip(names, shown, strict=True)]
    heads = [words("review.head.queue"), words("figures.median")]
    return _chart(words("figures.times"), named_bars(names, values, shown), heads, rows, words)


def _rulings_html(found: ReviewFigures, words: Words) -> str:
    names = [words(f"ruling.{ruling}") for ruling in found.rulings]
    values = [float(count) for count in found.rulings.values()]
    shown = [f"{value:.0f}" for value in values]
    rows = [[escape(name), text] for name, text in zip(names, shown, strict=True)]
    heads = [words("figures.ruling"), words("figures.decided")]
    bars = named_bars(names, values, shown, "good")
    return _chart(words("figures.rulings"), bars, heads, rows, words)


def _chart(name: str, chart: str, heads: list[str], rows: list[list[str]], words: Words) -> str:
    if not rows:
        return f'<section class="card"><h2>{escape(name)}</h2>{_nothing(words)}</section>'
    table = table_html(heads, rows, name)
    return f"""<section class="card"><h2>{escape(name)}</h2>{chart}
<details><summary>{escape(words("usage.table"))}</summary>{table}</details></section>"""


def _span(minutes: float) -> str:
    if minutes < 60:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h" if minutes < 48 * 60 else f"{minutes / 1440:.1f} d"


def _evaluation(service: Service) -> Mapping[str, Any]:
    """What the operator measured here, else what was measured of the shipped model."""
    own = service.limits.data_directory / "evaluation.json"
    if own.is_file():
        measured: Mapping[str, Any] = json.loads(own.read_text(encoding="utf-8"))
        return measured
    return _shipped()


@cache
def _shipped() -> Mapping[str, Any]:
    text = resources.files("imagine.ui").joinpath("evaluation.json").read_text(encoding="utf-8")
    measured: Mapping[str, Any] = json.loads(text)
    return measured
