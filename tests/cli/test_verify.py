from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagine.core import Recipe
from imagine.provenance import MARKS_FOLDER, AuditReference, mark_image, open_marker
from imagine.provenance.watermark_report import drawing
from tests.cli.conftest import Run

RECIPE = Recipe("on the moon", 7, 4, 2.5, 0.7, "fake", "fake-1", "ab" * 32, "0.1.0")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IMAGINE_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def test_a_picture_made_here_is_recognised(run: Run, data: Path, tmp_path: Path) -> None:
    marker = open_marker(data / MARKS_FOLDER)[0]
    marked = mark_image(drawing(2, 128), RECIPE, marker, AuditReference(42, "", ""))
    path = marked.save(tmp_path / "a.jpg")
    said, facts = run("verify", path), json.loads(run("verify", path, "--json").out)
    assert said.status == 0 and said.out.startswith("a.jpg: made here, untouched. ")
    assert (facts["verdict"], facts["record"]) == ("made here, untouched", 42)
    assert "moon" not in said.out + str(facts)


def test_without_keys_it_says_so_and_makes_none(run: Run, data: Path, tmp_path: Path) -> None:
    path = mark_image(drawing(2, 128), RECIPE).save(tmp_path / "a.png")
    done = run("verify", path)
    assert done.status == 0 and "not ours" in done.out and "no marking keys" in done.err
    assert not data.exists()


def test_what_is_no_picture_ends_with_status_2(run: Run, data: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    assert run("verify", tmp_path / "a.png").status == 2
    assert run("verify", tmp_path / "missing.png").status == 2
