"""The reviewers' pages: what waits, one thing at a time, decided with one key.

Pictures come grey and blurred. Seeing one in clear, deciding, approving and taking evidence out are
acts of the domain (`storage/reviews.py`, `service/oversight.py`), which writes each of them down
and refuses what a reviewer may not do, or not alone. These pages only ask.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from imagine.errors import ImagineError, InvalidInput, ReviewRefused
from imagine.service.oversight import Oversight
from imagine.service.wiring import Service
from imagine.storage.acts import ActKind, Reason
from imagine.storage.reviews import Queue, Review, ReviewState, Ruling
from imagine.ui import review_board, review_case
from imagine.ui.accounts import Accounts
from imagine.ui.sessions import COOKIE
from imagine.ui.sheet import (
    REVIEWER_SCOPES,
    NotForYou,
    field_of,
    form_of,
    go_to,
    sheet,
    staff,
    words_for,
)
from imagine.ui.words import Words

_SAID = ("decided", "needs_second", "asked", "approved", "done", "swept", "case")
Act = Callable[["Office"], Response]


@dataclass(frozen=True, slots=True)
class Office:
    """A reviewer at work.

    Attributes:
        service: the domain.
        tenant_id: whose reviews.
        actor: the reviewer, as a pseudonym.
        words: of their language.
    """

    service: Service
    tenant_id: str
    actor: str
    words: Words

    @property
    def oversight(self) -> Oversight:
        """What shows, sweeps and exports."""
        return self.service.oversight

    def review(self, review_id: str) -> Review:
        """One review of this tenant."""
        return self.service.reviews.get(self.tenant_id, review_id)


def routes(accounts: Accounts) -> APIRouter:
    """The routes of all reviewers' pages."""
    router = APIRouter(include_in_schema=False, prefix="/review")

    def office(request: Request) -> Office:
        studio = staff(accounts, request.cookies.get(COOKIE), REVIEWER_SCOPES)
        caller = studio.caller
        words = words_for(request, accounts)
        return Office(studio.service, caller.tenant_id, caller.actor, words)

    def shown(request: Request, title: str, body: str, error: ImagineError | None = None) -> Any:
        words = words_for(request, accounts)
        asked = request.query_params.get("said", "")
        said = words(f"review.said.{asked}") if asked in _SAID else ""
        if error is not None:
            return sheet(request, accounts, title, body, 400, words.error(error), "bad")
        return sheet(request, accounts, title, body, said=said)

    def refused(request: Request, error: ImagineError | None) -> Any:
        words = words_for(request, accounts)
        if error is None:
            return sheet(request, accounts, words("review.heading"), "", 403,
                         words("office.not_yours"), "bad")  # fmt: skip
        return shown(request, words("review.heading"), review_board.back_html(words), error)

    async def answered(request: Request, act: Callable[[Office], Any]) -> Any:
        try:
            here = office(request)
            done = await run_in_threadpool(act, here)
            return await done if isinstance(done, Awaitable) else done
        except NotForYou:
            return refused(request, None)
        except ImagineError as error:
            return refused(request, error)

    @router.get("")
    async def overview(request: Request) -> Any:
        queue = _queue(request.query_params.get("queue"))

        def act(here: Office) -> Any:
            body = review_board.overview_html(here.service, here.tenant_id, queue, here.words)
            return shown(request, here.words("review.heading"), body)

        return await answered(request, act)

    @router.get("/next")
    async def next_one(request: Request) -> Any:
        queue = _queue(request.query_params.get("queue"))
        said = request.query_params.get("said", "")

        def act(here: Office) -> Response:
            waiting = review_board.by_urgency(
                here.service.reviews.find(here.tenant_id, queue, (ReviewState.OPEN,), 50)
            )
            mine = [one for one in waiting if one.filed_by != here.actor]
            facts = {"said": said, **({"queue": queue.value} if queue else {})}
            if not mine:
                return go_to("/review", **{**facts, "said": "done"})
            return go_to(f"/review/{mine[0].id}", **facts)

        return await answered(request, act)

    @router.get("/takedowns")
    async def takedowns(request: Request) -> Any:
        def act(here: Office) -> Any:
            body = review_board.takedowns_html(here.service, here.tenant_id, here.words)
            return shown(request, here.words("review.takedowns"), body)

        return await answered(request, act)

    @router.post("/takedowns/{takedown_id}/contact")
    async def contact(request: Request, takedown_id: str) -> Any:
        def act(here: Office) -> Any:
            notice = here.service.takedowns.read_contact(here.tenant_id, takedown_id, here.actor)
            body = review_board.contact_html(notice, here.words)
            return shown(request, here.words("review.contact"), body)

        return await answered(request, act)

    @router.get("/approvals")
    async def approvals(request: Request) -> Any:
        def act(here: Office) -> Any:
            waiting = here.service.reviews.acts.find(here.tenant_id, waiting=True)
            body = review_board.approvals_html(waiting, here.actor, here.words)
            return shown(request, here.words("review.approvals"), body)

        return await answered(request, act)

    @router.post("/approvals/{act_id}")
    async def approve(request: Request, act_id: str) -> Any:
        def act(here: Office) -> Response:
            asked = here.service.reviews.acts.get(here.tenant_id, act_id)
            if asked.kind is ActKind.COLLECT:
                here.service.cases.approve(here.tenant_id, act_id, here.actor)
            else:
                here.service.reviews.acts.approve(here.tenant_id, act_id, here.actor)
            return go_to("/review/approvals", said="approved")

        return await answered(request, act)

    @router.get("/cases")
    async def cases(request: Request) -> Any:
        def act(here: Office) -> Any:
            found = here.service.cases.find(here.tenant_id)
            body = review_board.cases_html(found, here.actor, here.words)
            return shown(request, here.words("review.cases"), body)

        return await answered(request, act)

    @router.post("/cases")
    async def open_case(request: Request) -> Any:
        form = await form_of(request)

        def act(here: Office) -> Response:
            identity, clause = field_of(form, "identity", 64), field_of(form, "clause", 8)
            reason = _reason(field_of(form, "reason", 40))
            here.service.cases.ask(here.tenant_id, identity, reason, clause, here.actor)
            return go_to("/review/cases", said="case")

        return await answered(request, act)

    @router.get("/cases/{case_id}")
    async def case(request: Request, case_id: str) -> Any:
        def act(here: Office) -> Any:
            contents = here.service.cases.contents(here.tenant_id, case_id, here.actor)
            may = _may_export(here, case_id)
            body = review_board.case_html(contents, may, here.words)
            return shown(request, here.words("case.heading", number=contents.act.number), body)

        return await answered(request, act)

    @router.get("/cases/{case_id}/pictures/{picture_id}")
    async def case_picture(request: Request, case_id: str, picture_id: str) -> Any:
        def act(here: Office) -> Response:
            whose = (here.tenant_id, case_id, picture_id, here.actor)
            return _file(here.oversight.look_into_case(*whose))

        return await answered(request, act)

    @router.post("/{kind}/{target_id}/evidence")
    async def ask_evidence(request: Request, kind: str, target_id: str) -> Any:
        def act(here: Office) -> Response:
            export = ActKind.EXPORT_EVIDENCE
            about = (Reason.LEGAL_REQUEST, "9.2", here.actor)
            here.service.reviews.acts.ask(here.tenant_id, export, target_id, *about)
            back = f"/review/cases/{target_id}" if kind == "cases" else f"/review/{target_id}"
            return go_to(back, said="asked")

        return await answered(request, act)

    @router.get("/{kind}/{target_id}/evidence.zip")
    async def evidence(request: Request, kind: str, target_id: str) -> Any:
        def act(here: Office) -> Response:
            whose = (here.tenant_id, target_id, here.actor)
            if kind == "cases":
                data = here.oversight.evidence_of_case(*whose)
            else:
                data = here.oversight.evidence_of_review(*whose)
            return _download(data, f"evidence-{target_id}.zip")

        return await answered(request, act)

    @router.get("/figures")
    async def figures(request: Request) -> Any:
        def act(here: Office) -> Any:
            body = review_board.figures_html(here.service, here.tenant_id, here.words)
            return shown(request, here.words("review.figures"), body)

        return await answered(request, act)

    @router.get("/audit")
    async def audit(request: Request) -> Any:
        def act(here: Office) -> Any:
            body = review_board.audit_html(here.service.log, None, here.words)
            return shown(request, here.words("review.audit"), body)

        return await answered(request, act)

    @router.post("/audit")
    async def verify_audit(request: Request) -> Any:
        def act(here: Office) -> Any:
            found = here.service.log.verify()
            body = review_board.audit_html(here.service.log, found, here.words)
            return shown(request, here.words("review.audit"), body)

        return await answered(request, act)

    @router.get("/{review_id}")
    async def one_review(request: Request, review_id: str) -> Any:
        queue = _queue(request.query_params.get("queue"))

        def act(here: Office) -> Any:
            review = here.review(review_id)
            title = here.words("review.one", queue=here.words(f"queue.{review.queue.value}"))
            body = review_case.case_html(
                here.service, review, here.actor, queue, _may_export(here, review_id), here.words
            )
            return shown(request, title, body)

        return await answered(request, act)

    @router.get("/{review_id}/picture")
    async def blurred(request: Request, review_id: str) -> Any:
        def act(here: Office) -> Response:
            return _file(here.oversight.look(here.tenant_id, review_id, here.actor))

        return await answered(request, act)

    @router.post("/{review_id}/clear")
    async def clear(request: Request, review_id: str) -> Any:
        """The picture in clear, for the script; a refusal is told as a sentence."""

        def act(here: Office) -> Response:
            whose = (here.tenant_id, review_id, here.actor)
            try:
                return _file(here.oversight.look(*whose, in_clear=True))
            except ImagineError as error:
                status = 409 if isinstance(error, ReviewRefused) else 404
                return JSONResponse({"message": here.words.error(error)}, status)

        return await answered(request, act)

    @router.post("/{review_id}/ask-clear")
    async def ask_clear(request: Request, review_id: str) -> Any:
        def act(here: Office) -> Response:
            review = here.review(review_id)
            about = (Reason.CANNOT_TELL, "9.1", here.actor, review.owner_id)
            here.service.reviews.acts.ask(here.tenant_id, ActKind.OPEN_IN_CLEAR, review_id, *about)
            return go_to(f"/review/{review_id}", said="asked")

        return await answered(request, act)

    @router.post("/{review_id}/sweep")
    async def sweep(request: Request, review_id: str) -> Any:
        def act(here: Office) -> Response:
            here.oversight.sweep(here.tenant_id, review_id, here.actor)
            return go_to(f"/review/{review_id}", said="swept")

        return await answered(request, act)

    @router.post("/{review_id}/decide")
    async def decide(request: Request, review_id: str) -> Any:
        form = await form_of(request)

        def act(here: Office) -> Response:
            ruling, reason, clause = _decision(field_of(form, "decision", 100))
            note = field_of(form, "note", 4000)
            decided = here.service.reviews.decide(
                here.tenant_id, review_id, ruling, reason, clause, here.actor, note
            )
            waits = decided.state is ReviewState.NEEDS_SECOND
            facts = {"said": "needs_second" if waits else "decided"}
            if queue := field_of(form, "queue", 20):
                facts["queue"] = queue
            return go_to("/review/next", **facts)

        return await answered(request, act)

    return router


def _queue(text: str | None) -> Queue | None:
    return Queue(text) if text in set(Queue) else None


def _reason(text: str) -> Reason:
    if text not in set(Reason):
        raise InvalidInput(f"There is no reason {text!r}. Known: {', '.join(Reason)}.")
    return Reason(text)


def _decision(text: str) -> tuple[Ruling, Reason, str]:
    """A ruling, a reason and a clause out of the value of a button."""
    ruling, _, rest = text.partition("|")
    reason, _, clause = rest.partition("|")
    if ruling not in set(Ruling):
        raise InvalidInput(f"There is no ruling {ruling!r}. Known: {', '.join(Ruling)}.")
    return Ruling(ruling), _reason(reason), clause


def _may_export(here: Office, target_id: str) -> bool:
    """Whether this reviewer and another one agreed to take evidence out."""
    try:
        here.service.reviews.acts.require(
            here.tenant_id, ActKind.EXPORT_EVIDENCE, target_id, here.actor
        )
    except ReviewRefused:
        return False
    return True


def _file(picture: Any) -> Response:
    headers = {"Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin"}
    return Response(picture.data, media_type=picture.media_type, headers=headers)


def _download(data: bytes, name: str) -> Response:
    headers = {
        "Cache-Control": "no-store",
        "Content-Disposition": f'attachment; filename="{name}"',
    }
    return Response(data, media_type="application/zip", headers=headers)
