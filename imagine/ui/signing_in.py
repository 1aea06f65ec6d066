"""The page where people say who they are: an API key, pasted once, or the login of their house."""

from __future__ import annotations

from html import escape

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from imagine.errors import ImagineError, KeyRefused, RateLimited
from imagine.ui.accounts import Accounts
from imagine.ui.routes import set_cookie
from imagine.ui.sessions import COOKIE
from imagine.ui.sheet import field_of, form_of, go_to, sheet, words_for
from imagine.ui.words import Words


def routes(accounts: Accounts, other_login: str = "") -> APIRouter:
    """The routes of signing in and out.

    Args:
        accounts: who is there.
        other_login: address where another login begins; "" where there is none.
    """
    router = APIRouter(include_in_schema=False)

    @router.get("/sign-in")
    async def ask(request: Request) -> Response:
        if not accounts.signs_in:
            return go_to("/")
        words = words_for(request, accounts)
        return sheet(request, accounts, words("sign.heading"), _form_html(words, other_login))

    @router.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        words = words_for(request, accounts)
        try:
            token = field_of(await form_of(request), "key")
            secret = await run_in_threadpool(accounts.sign_in, request, token)
        except ImagineError as error:
            status = 401 if isinstance(error, KeyRefused) else 400
            status = 429 if isinstance(error, RateLimited) else status
            body = _form_html(words, other_login)
            title = words("sign.heading")
            return sheet(request, accounts, title, body, status, words.error(error), "bad")
        answer = go_to("/")
        set_cookie(answer, secret, request)
        return answer

    @router.post("/sign-out")
    async def sign_out(request: Request) -> Response:
        secret = request.cookies.get(COOKIE)
        if secret:
            await run_in_threadpool(accounts.end, secret)
        answer = go_to("/sign-in")
        answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return answer

    return router


def _form_html(words: Words, other_login: str) -> str:
    other = ""
    if other_login:
        other = (
            f'<p class="row"><a class="small" href="{escape(other_login)}">'
            f"{escape(words('sign.other'))}</a></p>"
        )
    return f"""<form class="card narrow" method="post" action="/sign-in">
<p>{escape(words("sign.intro"))}</p>
<label for="key">{escape(words("sign.key"))}</label>
<input id="key" name="key" type="password" autocomplete="current-password" required
 autocapitalize="off" spellcheck="false" placeholder="imk_...">
<p class="row"><button>{escape(words("sign.in"))}</button></p>
<p class="muted">{escape(words("sign.no_key"))}</p>{other}</form>"""
