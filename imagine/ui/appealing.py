"""Where somebody disagrees with what was held back of their wishes, and what came of it."""

from __future__ import annotations

from html import escape

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from imagine.errors import ImagineError
from imagine.storage.jobs import Job
from imagine.storage.reviews import Review, ReviewState
from imagine.ui.accounts import Accounts
from imagine.ui.remote import RemoteStudio
from imagine.ui.review_board import moment
from imagine.ui.sessions import COOKIE
from imagine.ui.sheet import (
    NotForYou,
    field_of,
    form_of,
    go_to,
    refusal,
    sheet,
    staff,
    words_for,
)
from imagine.ui.words import Words

_SCOPE = "images:write"


def routes(accounts: Accounts) -> APIRouter:
    """The routes of the page."""
    router = APIRouter(include_in_schema=False)

    @router.get("/appeals")
    def show(request: Request) -> Response:
        words = words_for(request, accounts)
        title = words("appeal.heading")
        try:
            studio = staff(accounts, request.cookies.get(COOKIE), {_SCOPE})
        except NotForYou:
            return sheet(request, accounts, title, "", 403, words("office.not_yours"), "bad")
        said = words("appeal.taken") if request.query_params.get("said") == "taken" else ""
        return sheet(request, accounts, title, appeals_html(studio, words), said=said)

    @router.post("/appeals/{job_id}")
    async def appeal(request: Request, job_id: str) -> Response:
        try:
            studio = staff(accounts, request.cookies.get(COOKIE), {_SCOPE})
            note = field_of(await form_of(request), "note", 4000)
            await run_in_threadpool(studio.appeal, job_id, note)
        except NotForYou:
            return go_to("/appeals")
        except ImagineError as error:
            return refusal(request, accounts, error)
        return go_to("/appeals", said="taken")

    return router


def appeals_html(studio: RemoteStudio, words: Words) -> str:
    """Every wish of which something was held back, with its appeal or the form for one."""
    held = studio.held_back()
    cards = "".join(_card_html(job, _appeals(studio, job), words) for job in held)
    intro = f'<p class="lead">{escape(words("appeal.intro"))}</p>'
    return intro + (cards or f'<p class="muted empty">{escape(words("appeal.none"))}</p>')


def _appeals(studio: RemoteStudio, job: Job) -> list[Review]:
    return studio.service.oversight.appeals(job.tenant_id, job_id=job.id)


def _card_html(job: Job, appeals: list[Review], words: Words) -> str:
    why = list((job.result or {}).get("withheld", []))
    if job.error is not None:
        why.append(job.error.message)
    reasons = "".join(f"<li>{escape(str(one))}</li>" for one in why)
    if appeals:
        what = _state_html(appeals, words)
    else:
        what = f"""<form method="post" action="/appeals/{job.id}">
<label for="note-{job.id}">{escape(words("appeal.why"))}</label>
<textarea id="note-{job.id}" name="note" maxlength="4000" rows="3"></textarea>
<p class="row"><button>{escape(words("appeal.send"))}</button></p></form>"""
    return f"""<section class="card"><h2>{escape(words("appeal.wish", when=moment(job.created_at)))}
</h2><ul lang="en">{reasons}</ul>{what}</section>"""


def _state_html(appeals: list[Review], words: Words) -> str:
    items = []
    for review in appeals:
        said = words("appeal.waits")
        if review.state is ReviewState.DECIDED and review.ruling is not None:
            said = words(f"appeal.{review.ruling.value}")
        items.append(f"<li>{escape(said)}</li>")
    return f'<ul class="answers">{"".join(items)}</ul>'
