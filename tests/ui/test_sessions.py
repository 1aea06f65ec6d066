from __future__ import annotations

from imagine.ui.local import LocalStudios
from imagine.ui.sessions import Sessions
from tests.ui.conftest import AGREED, selfie


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_secret_leads_to_its_own_studio(studios: LocalStudios) -> None:
    sessions = Sessions(studios)
    first, second = sessions.open(), sessions.open()
    assert sessions.studio(first) is not sessions.studio(second)
    assert sessions.studio(first) is sessions.studio(first)
    assert len(first) >= 43  # 256 bits


def test_nobody_is_found_by_a_wrong_secret(studios: LocalStudios) -> None:
    sessions = Sessions(studios)
    sessions.open()
    assert [sessions.studio(secret) for secret in (None, "", "guess")] == [None] * 3


def test_an_unused_session_ends_and_its_photos_are_gone(studios: LocalStudios) -> None:
    clock = Clock()
    sessions = Sessions(studios, idle_seconds=60, clock=clock)
    left, used = sessions.open(), sessions.open()
    studio = sessions.studio(left)
    assert studio is not None
    studio.add_photo(selfie(), "me.jpg")
    studio.enrol("Ada", AGREED)
    clock.now = 50
    sessions.studio(used)
    clock.now = 100
    sessions.sweep()
    assert sessions.studio(left) is None and sessions.studio(used) is not None
    assert not studio.photos() and studio.person() is None


def test_too_many_sessions_end_an_empty_one_that_was_unused_for_longest(
    studios: LocalStudios,
) -> None:
    clock = Clock()
    sessions = Sessions(studios, max_sessions=3, clock=clock)
    secrets = []
    for moment in range(4):
        clock.now = float(moment)
        secrets.append(sessions.open())
        if moment == 0:
            studio = sessions.studio(secrets[0])
            assert studio is not None
            studio.add_photo(selfie(), "me.jpg")
    assert len(sessions) == 3
    assert sessions.studio(secrets[0]) is not None
    assert sessions.studio(secrets[1]) is None


def test_closing_forgets_everybody(studios: LocalStudios) -> None:
    sessions = Sessions(studios)
    studio = sessions.studio(sessions.open())
    assert studio is not None
    studio.add_photo(selfie(), "me.jpg")
    sessions.close()
    assert not studio.photos() and len(sessions) == 0
