"""Starts the page: `python app.py`, then open the address it prints.

One person at one machine: everything is in memory and forgotten at the end. The pages themselves
are in `imagine/ui/`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from imagine.errors import ImagineError, InvalidInput, MissingExtra

_NEEDED = ("gradio", "fastapi", "uvicorn")
_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        check_packages()
        _serve(options)
    except ImagineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def check_packages() -> None:
    """Refuse to start without what the page is made with.

    Raises:
        MissingExtra: names what is missing and the command that installs it.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"The page needs {', '.join(missing)}, which is not installed. "
            "Run: pip install 'imagine-yourself[ui]'"
        )


def _serve(options: argparse.Namespace) -> None:
    # Here and not above: these import gradio, which takes seconds and may be missing.
    from imagine.ui.local import LocalStudios
    from imagine.ui.server import run

    if not 0 < options.port < 65536:
        raise InvalidInput(f"The port is {options.port}; choose one from 1 to 65535.")
    alone = options.host in _THIS_MACHINE
    studios = LocalStudios(backend=options.backend, device=options.device, alone=alone)
    with contextlib.suppress(KeyboardInterrupt):
        run(studios, options.host, options.port, lambda: _ready(studios.warm_up, options))
    print("Ended; photos and pictures are forgotten.")


def _ready(warm_up: Callable[[], None], options: argparse.Namespace) -> None:
    warm_up()
    shown = "127.0.0.1" if options.host in ("0.0.0.0", "::") else options.host
    print(f"Imagine yourself is at http://{shown}:{options.port}/ - Ctrl+C ends it.", flush=True)
    if options.host not in _THIS_MACHINE:
        print(
            "Everybody who reaches this machine can open the page; each sees only their own "
            "photos. Without HTTPS others on the network can read along, and browsers keep the "
            "camera closed.",
            file=sys.stderr,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The page of Imagine yourself.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (this machine)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (7860)")
    parser.add_argument("--backend", default="embedded", help="image model (embedded)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (cpu)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
