from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

pytest.importorskip("gradio", reason="needs the extra ui: pip install -e '.[ui]'")

import app


def test_what_is_missing_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "find_spec", lambda name: None if name == "gradio" else object())
    assert app.main([]) == 5
    said = capsys.readouterr().err
    assert "gradio" in said and "pip install 'imagine-yourself[ui]'" in said


def test_an_impossible_port_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--port", "70000"]) == 2
    assert "70000" in capsys.readouterr().err


def test_a_port_somebody_has_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert app.main(["--backend", "fake", "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert str(port) in said and "--port" in said


def test_an_unknown_backend_is_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert app.main(["--backend", "nonsense"]) == 2
    assert "embedded" in capsys.readouterr().err


def test_it_says_where_it_is_and_that_it_forgets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from imagine.ui import server
    from imagine.ui.local import LocalStudios

    def until_interrupted(
        studios: LocalStudios, host: str, port: int, on_ready: Callable[[], None]
    ) -> None:
        on_ready()
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "run", until_interrupted)
    monkeypatch.setattr(LocalStudios, "warm_up", lambda self: None)
    assert app.main(["--backend", "fake", "--host", "0.0.0.0", "--port", "8123"]) == 0
    out, err = capsys.readouterr()
    assert "http://127.0.0.1:8123" in out and "forgotten" in out
    assert "Everybody who reaches this machine" in err
