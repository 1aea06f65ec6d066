"""The frame of the pages that are plain HTML: head, places to go, what happened, the content.

These pages carry no inline script, so their policy is the strict one.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from html import escape
from urllib.parse import parse_qs, urlencode

from fastapi import Request, Response
from starlette.responses import RedirectResponse

from imagine.errors import ImagineError, InvalidInput, KeyRefused, NotStored, RateLimited
from imagine.ui.remote import RemoteStudio
from imagine.ui.sessions import COOKIE, Sessions
from imagine.ui.theme import ICON, MARK
from imagine.ui.words import Words, preferred_language

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
REVIEWER_SCOPES = frozenset({"review"})
DEVELOPER_SCOPES = frozenset({"service:read"})
_MOST_FORM_BYTES = 64 * 1024
_HEAD = (
    '<link rel="stylesheet" href="/look/page.css"><link rel="stylesheet" href="/look/office.css">'
    '<link rel="stylesheet" href="/look/visit.css">'
    '<script src="/look/office.js" defer></script>'
    '<meta name="color-scheme" content="light dark">'
    f'<link rel="icon" href="{ICON}">'
)


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere to go: an address and the key of its name."""

    href: str
    key: str


def places(sessions: Sessions, secret: str | None) -> tuple[Place, ...]:
    """Where somebody may go: everybody to public pages, staff to their offices too."""
    if sessions.house != "service":
        return ()
    studio = sessions.studio(secret)
    if not isinstance(studio, RemoteStudio):
        return (Place("/sign-in", "sign.in"), *_PUBLIC)
    offices = [Place("/", "place.studio")]
    if "images:write" in studio.caller.scopes:
        offices.append(Place("/appeals", "place.appeals"))
    if studio.caller.scopes & REVIEWER_SCOPES:
        offices.append(Place("/review", "place.review"))
    if studio.caller.scopes & DEVELOPER_SCOPES:
        offices.append(Place("/developers", "place.developers"))
        offices.append(Place("/reference", "place.reference"))
    return (*offices, *_PUBLIC)


_PUBLIC = (Place("/report", "place.report"), Place("/verify", "place.verify"))


class NotForYou(Exception):
    """Somebody asks for an office that is not theirs."""


def staff(sessions: Sessions, secret: str | None, scopes: Set[str]) -> RemoteStudio:
    """The studio of somebody who may do one of these.

    Raises:
        NotForYou: nobody is there, or they may not.
    """
    studio = sessions.studio(secret)
    if not isinstance(studio, RemoteStudio) or not studio.caller.scopes & scopes:
        raise NotForYou
    return studio


def nav_html(found: tuple[Place, ...], words: Words, here: str, signed_in: bool) -> str:
    """The places as links, and the way out."""
    links = "".join(
        f'<a href="{place.href}"{_current(place.href, here)}>{escape(words(place.key))}</a>'
        for place in found
    )
    out = ""
    if signed_in:
        out = (
            '<form method="post" action="/sign-out"><button class="small second">'
            f"{escape(words('sign.out'))}</button></form>"
        )
    return f'<nav class="places" aria-label="{escape(words("place.nav"))}">{links}{out}</nav>'


def sheet(
    request: Request,
    sessions: Sessions,
    title: str,
    body: str,
    status: int = 200,
    said: str = "",
    kind: str = "good",
    script: str = "",
) -> Response:
    """A whole page.

    Args:
        request: who asks, and in which language.
        sessions: who is there.
        title: heading of the page, plain text.
        body: the content, as HTML.
        status: of the answer.
        said: what happened, plain text; read out by screen readers.
        kind: "good" or "bad".
        script: one more file of `look/`, of this page alone.
    """
    words = words_for(request, sessions)
    secret = request.cookies.get(COOKIE)
    nav = nav_html(
        places(sessions, secret),
        words,
        request.url.path,
        sessions.signs_in and sessions.studio(secret) is not None,
    )
    note = f'<p class="note {kind}">{escape(said)}</p>' if said else ""
    switch = escape(words("theme.switch"))
    more = f'<script src="/look/{script}" defer></script>' if script else ""
    page = f"""<!doctype html>
<html lang="{words.language}"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · {escape(words("title"))}</title>{_HEAD}{more}</head>
<body class="office"><a class="skip" href="#main">{escape(words("place.skip"))}</a>
<header><p class="home">{MARK}<a href="/">{escape(words("title"))}</a>
<button type="button" class="round second" data-theme aria-label="{switch}" title="{switch}">\u25d0
</button></p>{nav}</header>
<main id="main" tabindex="-1"><h1>{escape(title)}</h1>
<div id="said" role="status">{note}</div>{body}</main></body></html>"""
    headers = {
        "Content-Security-Policy": POLICY,
        "Cache-Control": "no-store",
        # With "no-referrer" a browser hides from us, too, that our own forms come from us.
        "Referrer-Policy": "same-origin",
    }
    return Response(page, status, headers=headers, media_type="text/html")


def refusal(request: Request, sessions: Sessions, error: ImagineError) -> Response:
    """An error as a page of its own."""
    words = words_for(request, sessions)
    status = 400
    if isinstance(error, KeyRefused):
        status = 403
    elif isinstance(error, NotStored):
        status = 404
    elif isinstance(error, RateLimited):
        status = 429
    back = f'<p><a href="/">{escape(words("place.studio"))}</a></p>'
    return sheet(request, sessions, words("title"), back, status, words.error(error), "bad")


def words_for(request: Request, sessions: Sessions) -> Words:
    """The words of whoever asks."""
    return Words(preferred_language(request.headers.get("accept-language")), sessions.house)


async def form_of(request: Request) -> dict[str, list[str]]:
    """The fields of a posted form, each with all its values.

    Raises:
        InvalidInput: larger than any form here, or not a form.
    """
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > _MOST_FORM_BYTES:
            raise InvalidInput("This form holds more than it can. Shorten what you wrote.")
    try:
        return parse_qs(data.decode("utf-8"), keep_blank_values=True, max_num_fields=200)
    except ValueError as error:
        raise InvalidInput("This form could not be read. Load the page again.") from error


def field_of(form: Mapping[str, list[str]], name: str, longest: int = 200) -> str:
    """One field, blanks around it removed; "" when it is not there.

    Raises:
        InvalidInput: longer than allowed.
    """
    value = form.get(name, [""])[0].strip()
    if len(value) > longest:
        raise InvalidInput(f"{name} has {len(value)} characters; {longest} are allowed.")
    return value


def go_to(path: str, **facts: str) -> Response:
    """After something was done: the page anew, so that a reload does not do it again."""
    query = f"?{urlencode(facts)}" if facts else ""
    return RedirectResponse(f"{path}{query}", 303, headers={"Cache-Control": "no-store"})


def table_html(heads: list[str], rows: list[list[str]], caption: str) -> str:
    """A table that scrolls by itself on a phone; cells are HTML already."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    name = escape(caption)
    return (
        f'<div class="wide" role="region" aria-label="{name}" tabindex="0"><table>'
        f'<caption class="offscreen">{name}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _current(href: str, here: str) -> str:
    is_here = href == here or (href != "/" and here.startswith(f"{href}/"))
    return ' aria-current="page"' if is_here else ""
