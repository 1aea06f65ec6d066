"""The papers a service owes the public: Markdown files of `docs/transparency`, and one it writes.

In a checkout they lie beside the package; installed, they come along as data files. The retention
schedule is made from the configuration in force, so it cannot say anything else than what happens.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import imagine
from imagine.errors import NotStored
from imagine.storage.retention import RetentionPolicy

DISTRIBUTION = "imagine-yourself"
FOLDER = Path("docs") / "transparency"
INSTALLED = "share/imagine-yourself/transparency"  # as [tool.setuptools.data-files] has it
SCHEDULE = "retention-schedule.md"


@dataclass(frozen=True, slots=True)
class Document:
    """A paper.

    Attributes:
        name: of the file, e.g. "model-cards.md".
        title: its first line.
        text: Markdown.
    """

    name: str
    title: str
    text: str

    @property
    def sha256(self) -> str:
        """Of the text in UTF-8, hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def documents(policy: RetentionPolicy) -> dict[str, Document]:
    """Every paper by its name; the schedule as this policy has it."""
    schedule = (
        "# How long what is kept\n\nMade from the configuration of this service.\n\n"
        + policy.schedule_markdown()
    )
    found = {path.name: path.read_text(encoding="utf-8") for path in _files()}
    texts = {**found, SCHEDULE: schedule}
    return {name: Document(name, _title(text), text) for name, text in sorted(texts.items())}


def document(policy: RetentionPolicy, name: str) -> Document:
    """One paper.

    Raises:
        NotStored: there is none of this name; lists those there are.
    """
    found = documents(policy)
    if name not in found:
        raise NotStored(f"There is no document {name[:80]!r}. Known: {', '.join(found)}.")
    return found[name]


@lru_cache(maxsize=1)
def _files() -> tuple[Path, ...]:
    """The Markdown files: of the checkout, else of the installed package."""
    beside = Path(imagine.__file__).resolve().parent.parent / FOLDER
    if beside.is_dir():
        return tuple(sorted(beside.glob("*.md")))
    try:
        installed = metadata.files(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return ()
    ours = [file for file in installed if INSTALLED in file.as_posix() and file.suffix == ".md"]
    return tuple(sorted(Path(str(file.locate())) for file in ours))


def _title(text: str) -> str:
    return text.partition("\n")[0].lstrip("# ").strip()
