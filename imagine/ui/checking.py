"""The page of the camera check: turn the head as asked, and the identity counts as verified.

Which turns is the server's choice, told when somebody begins, good for one answer within a minute.
The script `look/checking.js` takes the pictures; they are measured here and dropped.
"""

from __future__ import annotations

import json
from html import escape
from typing import Annotated

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from starlette.concurrency import run_in_threadpool

from imagine.errors import ImagineError
from imagine.safety.enrolment import ChallengeState, Stage
from imagine.service.admission import MAX_FRAMES, Answer
from imagine.service.routers.challenges import FRAMES_BYTES, read_frames
from imagine.storage.verified import StoredChallenge
from imagine.ui.accounts import Accounts
from imagine.ui.me import name_of
from imagine.ui.remote import RemoteStudio
from imagine.ui.sessions import COOKIE
from imagine.ui.sheet import NotForYou, field_of, form_of, sheet, staff, words_for
from imagine.ui.studio import Person
from imagine.ui.words import Words, table

# Seconds a pose is asked for: to hear it, to turn slowly, to hold it. Nine of the longer ones
# leave a third of the minute to send the pictures.
POSE_SECONDS = 3.0
SLOW_POSE_SECONDS = 4.4
_SCOPE = "identities:write"
_TOLD = ("check.pose.", "check.code.", "check.camera.")
_ALSO_TOLD = (
    "check.ready", "check.sending", "check.away", "check.passed", "check.stopped", "check.hidden",
    "check.step", "check.begin", "check.again", "check.net",
)  # fmt: skip


def routes(accounts: Accounts) -> APIRouter:
    """The routes of the page."""
    router = APIRouter(include_in_schema=False, prefix="/camera-check")

    def found(request: Request) -> RemoteStudio:
        return staff(accounts, request.cookies.get(COOKIE), {_SCOPE})

    @router.get("")
    def show(request: Request, person: str = "") -> Response:
        words = words_for(request, accounts)
        title = words("check.heading")
        try:
            studio = found(request)
        except NotForYou:
            return sheet(request, accounts, title, "", 403, words("office.not_yours"), "bad")
        people = studio.people()
        chosen = next((one for one in people if one.id == person), studio.person())
        if chosen is None and people:
            chosen = people[0]
        body = check_html(people, chosen, words)
        return sheet(request, accounts, title, body, script="checking.js")

    @router.post("/begin")
    async def begin(request: Request) -> Response:
        """A new challenge; an older one of this person is void."""
        try:
            studio = found(request)
            person = field_of(await form_of(request), "person")
            challenge = await run_in_threadpool(studio.begin_check, person)
        except NotForYou:
            return _refused(words_for(request, accounts)("office.not_yours"), 403)
        except ImagineError as error:
            return _refused(words_for(request, accounts).error(error), 400)
        return _told(_begun(challenge))

    @router.post("/answer", max_body_size=FRAMES_BYTES)
    def answer(
        request: Request,
        person: Annotated[str, Form(max_length=64)],
        challenge: Annotated[str, Form(max_length=64)],
        nonce: Annotated[str, Form(max_length=64)],
        frames: Annotated[list[UploadFile], File()],
    ) -> Response:
        """What the camera saw, once."""
        words = words_for(request, accounts)
        try:
            given = Answer(challenge, nonce, read_frames(frames))
            state = found(request).answer_check(person, given)
        except NotForYou:
            return _refused(words("office.not_yours"), 403)
        except ImagineError as error:
            return _refused(words.error(error), 400)
        return _told({"passed": state.stage is Stage.PASSED, "message": said_of(state, words)})

    return router


def said_of(state: ChallengeState, words: Words) -> str:
    """What came of a check, in words that say what to do next."""
    if state.stage is Stage.PASSED:
        return words("check.passed")
    key = f"check.code.{state.code}"
    return words(key) if key in table() else state.words


def check_html(people: tuple[Person, ...], chosen: Person | None, words: Words) -> str:
    """The camera, what is asked, and what the check is for."""
    say = _Escaped(words)
    if chosen is None:
        return (
            f'<p class="muted empty">{say("check.nobody")}</p>'
            f'<p class="row"><a class="small" href="/">{say("place.studio")}</a></p>'
        )
    how = "".join(f"<li>{say(f'check.how_{number}')}</li>" for number in (1, 2, 3))
    return f"""<p class="lead">{say("check.intro")}</p>{_people_html(people, chosen, words)}
<div class="check-grid"><section class="card check" data-check="{escape(chosen.id)}"
 data-words="{escape(_script_words(words))}" data-most-frames="{MAX_FRAMES}"
 aria-label="{say("check.heading")}">
<div class="stage" data-pose="ahead"><video playsinline muted aria-label="{say("check.video")}">
</video>{_GUIDE}</div>
<div class="check-bar" role="progressbar" aria-label="{say("check.heading")}" aria-valuemin="0"
 aria-valuemax="100" aria-valuenow="0" hidden><span></span></div>
<p class="asks" aria-live="assertive"></p><p class="answer note" tabindex="-1" hidden></p>
<p class="row"><button type="button" data-does="camera">{say("check.camera_on")}</button>
<button type="button" data-does="begin" hidden>{say("check.begin")}</button>
<button type="button" data-does="stop" class="second" hidden>{say("check.stop")}</button>
<button type="button" data-does="off" class="second" hidden>{say("check.camera_off")}</button>
<a class="small" href="/" data-does-after hidden>{say("place.studio")}</a></p>
<fieldset data-options><label class="tick"><input type="checkbox" data-slow>
<span>{say("check.slow")}</span></label>
<label class="tick"><input type="checkbox" data-tone checked><span>{say("check.tone")}</span>
</label></fieldset></section>
<div><section class="card"><h2>{say("check.how")}</h2><ol>{how}</ol></section>
<section class="card"><h2>{say("check.kept_heading")}</h2><p>{say("check.kept")}</p></section>
</div></div>"""


def _people_html(people: tuple[Person, ...], chosen: Person, words: Words) -> str:
    """Who is meant, where there are several; and since when they are verified."""
    said = ""
    if chosen.verified_at is not None:
        when = chosen.verified_at.astimezone().strftime("%Y-%m-%d")
        said = f'<p class="note good">{escape(words("check.passed_on", when=when))}</p>'
    if len(people) < 2:
        return said
    here = ' aria-current="page"'
    links = "".join(
        f'<a href="/camera-check?person={escape(one.id)}"{here if one.id == chosen.id else ""}>'
        f"{escape(name_of(one, words))}</a>"
        for one in people
    )
    return f'<nav class="tabs" aria-label="{escape(words("check.who"))}">{links}</nav>{said}'


# An oval whose line fills as the check goes on, and an arrow to either side.
_GUIDE = """<svg class="guide" viewBox="0 0 400 300" aria-hidden="true">
<ellipse class="rim" cx="200" cy="145" rx="82" ry="110"/>
<path class="done" d="M200 35a82 110 0 0 1 0 220a82 110 0 0 1 0-220" pathLength="100"/>
<path class="to left" d="M84 105 44 145l40 40M44 145h58"/>
<path class="to right" d="M316 105l40 40-40 40M356 145h-58"/>
<circle class="to ahead" cx="200" cy="145" r="7"/></svg>"""


def _script_words(words: Words) -> str:
    keys = [key for key in table() if key.startswith(_TOLD) or key in _ALSO_TOLD]
    return json.dumps({key.removeprefix("check."): words.raw(key) for key in keys})


def _begun(challenge: StoredChallenge) -> dict[str, object]:
    left = (challenge.deadline_at - challenge.issued_at).total_seconds()
    return {
        "id": challenge.id,
        "nonce": challenge.nonce,
        "poses": list(challenge.poses),
        "seconds_left": left,
        "seconds_each": POSE_SECONDS,
        "slow_seconds_each": SLOW_POSE_SECONDS,
    }


def _told(facts: dict[str, object]) -> Response:
    return Response(
        json.dumps(facts), media_type="application/json", headers={"Cache-Control": "no-store"}
    )


def _refused(message: str, status: int) -> Response:
    answer = _told({"passed": False, "message": message})
    answer.status_code = status
    return answer


class _Escaped:
    def __init__(self, words: Words) -> None:
        self._words = words

    def __call__(self, key: str) -> str:
        return escape(self._words(key))
