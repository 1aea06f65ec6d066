"""Public pages, no account: ask for a picture of you to be removed; verify any picture."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from starlette.concurrency import run_in_threadpool

from imagine.errors import ImagineError, InvalidInput, NotStored, RateLimited
from imagine.storage.takedowns import Notice, Takedown
from imagine.ui.accounts import Accounts
from imagine.ui.review_board import clock_html, moment
from imagine.ui.sheet import field_of, form_of, sheet, words_for
from imagine.ui.words import Words

NOTICE_BYTES = 16 * 1024 * 1024
_LONGEST = 4000
Line = Annotated[str, Form(max_length=_LONGEST)]


def routes(accounts: Accounts) -> APIRouter:
    """The routes of the public pages."""
    router = APIRouter(include_in_schema=False)
    service = accounts.service

    @router.get("/report")
    def ask(request: Request) -> Response:
        words = words_for(request, accounts)
        return sheet(request, accounts, words("report.heading"), report_html({}, words))

    @router.post("/report", max_body_size=NOTICE_BYTES)
    def take(
        request: Request,
        name: Line = "",
        contact: Line = "",
        statement: Line = "",
        where: Line = "",
        in_good_faith: Annotated[str, Form(max_length=10)] = "",
        picture: Annotated[UploadFile | None, File()] = None,
    ) -> Response:
        words = words_for(request, accounts)
        title = words("report.heading")
        given = {"name": name, "contact": contact, "statement": statement, "where": where}
        try:
            service.doorkeeper.admit_registration(request)
            copy = _copy(picture, service.limits.max_photo_bytes, words)
            notice = Notice(name, contact, statement, where, bool(in_good_faith))
            filed = service.oversight.file_takedown(notice, copy)
        except ImagineError as error:
            status = 429 if isinstance(error, RateLimited) else 400
            body = report_html(given, words)
            return sheet(request, accounts, title, body, status, words.error(error), "bad")
        said = words("report.taken")
        return sheet(request, accounts, title, taken_html(filed, words), 201, said)

    @router.post("/report/status")
    async def status(request: Request) -> Response:
        words = words_for(request, accounts)
        title = words("report.heading")
        try:
            service.doorkeeper.admit_anybody(request)
            number = field_of(await form_of(request), "number", 64)
            found = await run_in_threadpool(service.takedowns.locate, number)
        except ImagineError as error:
            code = 404 if isinstance(error, NotStored) else 400
            body = report_html({}, words)
            return sheet(request, accounts, title, body, code, words.error(error), "bad")
        return sheet(request, accounts, title, taken_html(found, words))

    @router.get("/verify")
    def verify(request: Request) -> Response:
        words = words_for(request, accounts)
        return sheet(request, accounts, words("verify.heading"), verify_html(words))

    return router


def report_html(given: dict[str, str], words: Words) -> str:
    """The form of a notice, with what was written before, and the one that asks what came of it."""
    say = _Escaped(words)
    fields = "".join(
        f'<label for="{name}">{say(f"report.{name}")}</label>'
        f'<input id="{name}" name="{name}" maxlength="{_LONGEST}" autocomplete="{kind}" '
        f'value="{escape(given.get(name, ""))}" {more}>'
        for name, kind, more in (("name", "name", "required"), ("contact", "email", "required"))
    )
    return f"""<p class="lead">{say("report.intro")}</p><div class="grid">
<form class="card" method="post" action="/report" enctype="multipart/form-data">
<h2>{say("report.form")}</h2>{fields}
<label for="statement">{say("report.statement")}</label>
<textarea id="statement" name="statement" maxlength="{_LONGEST}" required>{
        escape(given.get("statement", ""))
    }</textarea>
<label for="where">{say("report.where")}</label>
<input id="where" name="where" maxlength="{_LONGEST}" value="{escape(given.get("where", ""))}"
 autocomplete="off" aria-describedby="where-hint">
<p class="hint" id="where-hint">{say("report.where_hint")}</p>
<label for="picture">{say("report.picture")}</label>
<input id="picture" name="picture" type="file" accept="image/png,image/jpeg,image/webp"
 aria-describedby="picture-hint"><p class="hint" id="picture-hint">{say("report.picture_hint")}</p>
<label class="tick"><input type="checkbox" name="in_good_faith" value="yes" required>
<span>{say("report.in_good_faith")}</span></label>
<p class="row"><button>{say("report.send")}</button></p></form>
<div><section class="card"><h2>{say("report.next")}</h2><ol>
<li>{say("report.next_1")}</li><li>{say("report.next_2")}</li><li>{say("report.next_3")}</li></ol>
</section><form class="card" method="post" action="/report/status"><h2>{say("report.ask")}</h2>
<label for="number">{say("report.number")}</label>
<input id="number" name="number" required maxlength="64" placeholder="takedown_..."
 autocomplete="off"><p class="row"><button class="second">{say("report.ask_button")}</button></p>
</form></div></div>"""


def taken_html(filed: Takedown, words: Words) -> str:
    """The receipt of a notice: its number, its clock, what came of it."""
    say = _Escaped(words)
    clock = clock_html(filed.due_at, datetime.now(UTC), words)
    if filed.closed_at is not None:
        clock = escape(moment(filed.closed_at))
    return f"""<section class="card narrow"><h2>{say("report.number")}</h2>
<code class="secret" id="token">{escape(filed.id)}</code>
<p class="row"><button type="button" data-copy="token" data-done="{say("office.copied")}">{
        say("office.copy")
    }</button></p><p>{say("report.keep")}</p><dl class="facts">
<dt>{say("review.head.state")}</dt><dd>{say(f"report.state.{filed.state.value}")}</dd>
<dt>{say("report.due")}</dt><dd>{clock}</dd>
<dt>{say("review.head.removed")}</dt><dd>{filed.removed}</dd></dl></section>"""


def verify_html(words: Words) -> str:
    """Where a file goes in; the script sends it and shows the answer."""
    say = _Escaped(words)
    return f"""<p class="lead">{say("verify.intro")}</p>
<div class="drop" data-verify-drop><p><strong>{say("verify.drop")}</strong></p>
<label for="verify-file">{say("verify.choose")}</label>
<input type="file" id="verify-file" data-verify accept="image/png,image/jpeg,image/webp"></div>
<div id="verify-result" aria-live="polite" data-looking="{say("verify.looking")}"
 data-failed="{say("net.failed")}"></div>"""


def _copy(picture: UploadFile | None, most: int, words: Words) -> bytes | None:
    if picture is None or not picture.filename:
        return None
    data = picture.file.read(most + 1)
    if len(data) > most:
        said = words("net.too_large", name=picture.filename[:80], megabytes=most // 2**20)
        raise InvalidInput(said)
    return data or None


class _Escaped:
    def __init__(self, words: Words) -> None:
        self._words = words

    def __call__(self, key: str, **facts: Any) -> str:
        return escape(self._words(key, **facts))
