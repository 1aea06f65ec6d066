"""One review on the screen: the picture under its veil, what is known, and the keys that decide."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any

from imagine.service.wiring import Service
from imagine.storage.acts import POLICY_CLAUSES, Reason
from imagine.storage.reviews import Decision, Queue, Review, ReviewState, Ruling
from imagine.storage.takedowns import Notice
from imagine.ui.review_board import clock_html, moment, tabs_html
from imagine.ui.words import Words

# Key, why, clause: against a picture.
_AGAINST = (
    ("2", Reason.NUDITY, "2.1"),
    ("3", Reason.APPARENT_MINOR, "1.2"),
    ("4", Reason.ANOTHER_PERSON, "7.1"),
    ("5", Reason.NOT_AGREED, "8.1"),
    ("6", Reason.ASKED_NOT_TO_BE_SHOWN, "8.2"),
    ("7", Reason.GORE, "3.1"),
    ("8", Reason.HATE, "4.1"),
    ("9", Reason.FRAUD, "5.1"),
    ("0", Reason.POLITICAL, "6.1"),
)
_FOR = ("1", Reason.WITHIN_POLICY, "9.1")
_UNSURE = ("c", Reason.CANNOT_TELL, "9.1")


def case_html(
    service: Service,
    review: Review,
    actor: str,
    queue: Queue | None,
    may_export: bool,
    words: Words,
) -> str:
    """All of the page; `queue` is where the reviewer came from and goes on."""
    note = service.reviews.read_note(review.tenant_id, review.id)
    history = service.reviews.history(review.tenant_id, review.id)
    notice = service.takedowns.read_statement(review)
    return f"""{tabs_html("", words)}<div class="case">
<div>{_picture_html(review, words)}</div>
<div>{_facts_html(review, words)}{_notice_html(notice, words)}{_note_html(note, words)}
{_decide_html(review, queue, words)}{_history_html(history, words)}
{_more_html(review, may_export, words)}</div></div>"""


def _picture_html(review: Review, words: Words) -> str:
    if not review.has_picture:
        return f'<p class="muted">{escape(words("review.no_picture"))}</p>'
    ask = ""
    if review.needs_two_to_open:
        ask = f"""<p class="hint">{escape(words("review.two_to_open"))}</p>
<form method="post" action="/review/{review.id}/ask-clear">
<button class="small second">{escape(words("review.ask_clear"))}</button></form>"""
    return f"""<figure>
<img id="picture" class="veiled" tabindex="-1" src="/review/{review.id}/picture" width="512"
 height="512" alt="{escape(words("review.picture_alt"))}"></figure>
<p class="row"><button type="button" class="second" data-key="u" data-unblur="picture"
 data-href="/review/{review.id}/clear">{escape(words("review.unblur"))}<kbd>U</kbd></button></p>
<p class="hint">{escape(words("review.unblur_hint"))}</p>{ask}"""


def _facts_html(review: Review, words: Words) -> str:
    now = datetime.now(UTC)
    rows = [
        (words("review.head.queue"), escape(words(f"queue.{review.queue.value}"))),
        (words("review.head.why"), f"<code>{escape(review.reason)}</code>"),
        (words("review.head.state"), escape(words(f"review.state.{review.state.value}"))),
        (words("review.head.came"), escape(moment(review.created_at))),
    ]
    if review.due_at is not None:
        rows.append((words("review.head.due"), clock_html(review.due_at, now, words)))
    if review.filed_by is not None:
        rows.append((words("review.head.by"), f"<code>{escape(review.filed_by)}</code>"))
    if review.identity_id is not None:
        rows.append((words("review.head.whom"), f"<code>{escape(review.identity_id)}</code>"))
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in rows)
    return f"""<section class="card"><h2>{escape(words("review.facts"))}</h2>
<dl class="facts">{facts}</dl>{_checks_html(review.checks, words)}</section>"""


def _checks_html(checks: Mapping[str, Any], words: Words) -> str:
    told = checks.get("checks", {})
    kinds = {"pass": "good", "review": "some", "block": "bad"}
    items = "".join(
        f'<li><code>{escape(name)}</code> <span class="badge {kinds.get(one["outcome"], "plain")}">'
        f"{escape(words('check.' + one['outcome']))}</span> {_score(one.get('score'))}</li>"
        for name, one in told.items()
        if one.get("outcome") in kinds
    )
    return f"<h3>{escape(words('review.checks'))}</h3><ul>{items}</ul>" if items else ""


def _notice_html(notice: Notice | None, words: Words) -> str:
    if notice is None:
        return ""
    where = f"<p><code>{escape(notice.where)}</code></p>" if notice.where else ""
    return f"""<section class="card"><h2>{escape(words("review.notice"))}</h2>
<blockquote>{escape(notice.statement)}</blockquote>{where}</section>"""


def _note_html(note: str, words: Words) -> str:
    if not note:
        return ""
    return f"""<section class="card"><h2>{escape(words("review.said_by_owner"))}</h2>
<blockquote>{escape(note)}</blockquote></section>"""


def _decide_html(review: Review, queue: Queue | None, words: Words) -> str:
    if review.state is ReviewState.DECIDED:
        ruling = words(f"ruling.{review.ruling.value}") if review.ruling else ""
        return f'<p class="note">{escape(words("review.already", ruling=ruling))}</p>'
    is_out = review.image_id is not None and review.withheld_id is None
    stays = words("review.stays_out" if is_out else "review.stays_in")
    goes = words("review.goes_in" if is_out else "review.goes_out")
    favour = Ruling.LEAVE if is_out or not review.has_picture else Ruling.RELEASE
    against = Ruling.REMOVE if is_out else Ruling.LEAVE
    second = ""
    if review.state is ReviewState.NEEDS_SECOND:
        second = f'<p class="note">{escape(words("review.second_wanted"))}</p>'
    elif favour is Ruling.RELEASE:
        second = f'<p class="hint">{escape(words("review.release_hint"))}</p>'
    first = _button(favour, *_FOR, words, " data-begin")
    others = "".join(_button(against, *one, words) for one in _AGAINST)
    unsure = _button(Ruling.LEAVE, *_UNSURE, words)
    return f"""<section class="card"><h2>{escape(words("review.decide"))}</h2>{second}
<form method="post" action="/review/{review.id}/decide">
<input type="hidden" name="queue" value="{queue.value if queue else ""}">
<label for="note">{escape(words("review.note"))}</label>
<textarea id="note" name="note" maxlength="4000" rows="2"></textarea>
<h3>{escape(stays if is_out or not review.has_picture else goes)}</h3>
<div class="decide">{first}{unsure}</div>
<h3>{escape(goes if is_out else stays)}</h3><div class="decide">{others}</div>
</form></section>"""


def _button(
    ruling: Ruling, key: str, reason: Reason, clause: str, words: Words, more: str = ""
) -> str:
    kind = "danger" if ruling is Ruling.REMOVE else "second"
    said = escape(POLICY_CLAUSES[clause])
    return (
        f'<button class="small {kind}" name="decision" value="{ruling}|{reason}|{clause}" '
        f'data-key="{key}" title="{clause} {said}"{more}>{escape(words(f"reason.{reason.value}"))} '
        f"<span>{clause}</span><kbd>{key.upper()}</kbd></button>"
    )


def _history_html(history: list[Decision], words: Words) -> str:
    if not history:
        return ""
    items = "".join(
        f"<li><strong>{escape(words(f'ruling.{one.ruling.value}'))}</strong>: "
        f"{escape(words(f'reason.{one.reason.value}'))} ({escape(one.clause)}), "
        f"<code>{escape(one.decided_by)}</code>, {moment(one.decided_at)}"
        f"{'' if one.is_final else ' · ' + escape(words('review.proposal'))}"
        f"{f'<br><q>{escape(one.note)}</q>' if one.note else ''} "
        f'<span class="muted">#{one.entry}</span></li>'
        for one in history
    )
    return f"""<section class="card"><h2>{escape(words("review.history"))}</h2>
<ul>{items}</ul></section>"""


def _more_html(review: Review, may_export: bool, words: Words) -> str:
    if may_export:
        export = (
            f'<a class="small" href="/review/reviews/{review.id}/evidence.zip" download>'
            f"{escape(words('review.evidence_get'))}</a>"
        )
    else:
        export = f"""<form method="post" action="/review/reviews/{review.id}/evidence">
<button class="small second">{escape(words("review.evidence_ask"))}</button></form>"""
    sweep = ""
    if review.has_picture:
        sweep = f"""<form method="post" action="/review/{review.id}/sweep">
<button class="small second">{escape(words("review.sweep"))}</button></form>"""
    skip = f"/review/next?queue={review.queue.value}"
    return f"""<section class="card"><h2>{escape(words("review.more"))}</h2>
<div class="decide">{export}{sweep}
<a class="small second" href="{skip}" data-key="n">{escape(words("review.next"))}<kbd>N</kbd></a>
</div><p class="hint">{escape(words("review.evidence_hint"))}</p></section>"""


def _score(score: object) -> str:
    return f'<span class="muted">{score:.2f}</span>' if isinstance(score, float) else ""
