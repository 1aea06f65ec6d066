"""Who is asking, in which language, and what to answer when something goes wrong.

Every handler of the page goes through `Desk`: it finds the studio by the session cookie, so no
handler can reach another person's things, and it turns errors into sentences on the page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from imagine.errors import ImagineError, NotStored
from imagine.ui.sessions import COOKIE, Sessions
from imagine.ui.studio import Studio
from imagine.ui.words import Spoken, Words, preferred_language


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody at the page."""

    studio: Studio
    words: Words


class SessionOver(Spoken, NotStored):
    """The session is over, or there never was one; says so in the visitor's language."""


class Desk:
    """Finds the visitor of a request."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    def visitor(self, request: gr.Request) -> Visitor:
        """Who sent this.

        Raises:
            SessionOver: the session is over, or there never was one.
        """
        words = words_of(request, self.sessions.house)
        studio = self.sessions.studio(request.cookies.get(COOKIE))
        if studio is None:
            raise SessionOver(words("net.restarted"))
        return Visitor(studio, words)

    def answer(self, act: Callable[..., Any], outputs: int) -> Callable[..., Any]:
        """A handler that calls `act(visitor, *values)`.

        Args:
            act: returns one value per output.
            outputs: how many there are; the first is the place for a message.
        """

        def handler(request: gr.Request, *values: Any) -> Any:
            return self._answered(request, outputs, act, values)

        return handler

    def answer_event(self, act: Callable[..., Any], outputs: int) -> Callable[..., Any]:
        """As `answer`, for a press inside a region: `act(visitor, action, id, *values)`."""

        def handler(request: gr.Request, event: gr.EventData, *values: Any) -> Any:
            facts = event._data or {}
            pressed = (str(facts.get("action", "")), str(facts.get("id", "")))
            return self._answered(request, outputs, act, (*pressed, *values))

        return handler

    def _answered(
        self, request: gr.Request, outputs: int, act: Callable[..., Any], values: tuple[Any, ...]
    ) -> Any:
        try:
            return act(self.visitor(request), *values)
        except ImagineError as error:
            return sorry(error, words_of(request), outputs)


def sorry(error: ImagineError, words: Words, outputs: int) -> Any:
    """The message in the first output, everything else as it is."""
    message = note(words.error(error), "bad")
    return message if outputs == 1 else (message, *[gr.skip()] * (outputs - 1))


def words_of(request: gr.Request, house: str = "") -> Words:
    """The words of the language the browser asks for, as they are said in this house."""
    return Words(preferred_language(request.headers.get("accept-language")), house)


def note(text: str, kind: str = "plain") -> str:
    """A message of the page: "plain", "good" or "bad"."""
    return f'<p class="note {kind}">{escape(text)}</p>' if text else ""
