from __future__ import annotations

from pathlib import Path

import pytest

from imagine.core import Recipe
from imagine.provenance import (
    AuditReference,
    MarkedImage,
    Marker,
    Verifier,
    mark_image,
    open_marker,
    open_verifier,
)
from imagine.provenance.watermark_report import drawing

AUDIT = AuditReference(record=42, model_sha256="ab" * 32, policy_sha256="cd" * 32)
RECIPE = Recipe("on the moon", 7, 4, 2.5, 0.7, "fake", "fake-1", "ab" * 32, "0.1.0")


@pytest.fixture(scope="session")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an installation's keys."""
    return tmp_path_factory.mktemp("installation") / "marks"


@pytest.fixture(scope="session")
def marker(marks: Path) -> Marker:
    open_marker(marks)
    # The same key in every run: whether a mark survives a crop must not depend on luck.
    (marks / "watermark.key").write_bytes(b"k" * 32)
    return open_marker(marks)[0]


@pytest.fixture(scope="session")
def verifier(marks: Path, marker: Marker) -> Verifier:
    return open_verifier(marks)


@pytest.fixture(scope="session")
def sealed(marker: Marker) -> MarkedImage:
    """A picture of 256 pixels, marked in every way."""
    return mark_image(drawing(2, 256), RECIPE, marker, AUDIT)
