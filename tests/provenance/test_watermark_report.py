from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from imagine.core import ImageArray
from imagine.errors import InvalidInput
from imagine.provenance import watermark_report
from imagine.provenance.spread_spectrum import SpreadSpectrumWatermark


def test_the_report_counts_what_survived_and_writes_a_page(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    few = {name: watermark_report.ATTACKS[name] for name in ("untouched", "through 64 x 64")}
    monkeypatch.setattr(watermark_report, "ATTACKS", few)
    drawings = [watermark_report.drawing(2, 128)] * 2
    monkeypatch.setattr(watermark_report, "test_pictures", lambda size, people=None: drawings)
    page = tmp_path / "watermark.md"
    words = ["--sizes", "128", "--pictures", "1", "--false-reads", "3", "--write", str(page)]
    watermark_report.main(words)
    told = capsys.readouterr().out
    assert "128 px, 1 pictures" in told and "PSNR dB" in told
    assert "untouched                  1 of 1   100.0 %" in told
    assert "0 false reads in 3 unmarked crops" in told
    assert "| untouched | 100.0 % |" in page.read_text()
    assert "**0 of 3**" in page.read_text()


class Models:
    """Two models that draw again: one changes nothing, one paints something else."""

    attacks: ClassVar[dict[str, watermark_report.Attack]] = {
        "copies": lambda picture, rng: picture,
        "forgets": lambda picture, rng: Image.fromarray(watermark_report.drawing(4, 128)),
    }
    pictures: ClassVar[list[ImageArray]] = [watermark_report.drawing(2, 128)]
    says = "One drawing."

    @staticmethod
    def distance(before: ImageArray, after: ImageArray) -> float | None:
        return 0.2 if (before == after).all() else None


def models(people: Path | None) -> Models:
    return Models()


def test_what_a_model_leaves_of_the_marks_is_put_into_the_page_and_stays_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "watermark.md"
    drawings = [watermark_report.drawing(2, 128)]
    monkeypatch.setattr(watermark_report, "ATTACKS", {"untouched": lambda p, r: p})
    monkeypatch.setattr(watermark_report, "test_pictures", lambda size, people=None: drawings)
    again = ["--regenerate", f"{__name__}:models", "--write", str(page)]
    watermark_report.main(["--sizes", "128", "--write", str(page)])
    assert "has not been measured" in page.read_text()
    watermark_report.main(again)
    told = page.read_text()
    assert "| copies | 100 % | 100 % | 0 | 99.0 | 0.20 | 1 of 1 |" in told
    assert "| forgets | 0 % | 0 % |" in told and "no face | 0 of 1" in told
    watermark_report.main(["--sizes", "128", "--write", str(page)])
    assert "| forgets | 0 % | 0 % |" in page.read_text() and "One drawing." in page.read_text()


def test_a_model_that_is_not_there_is_refused_with_one_that_is() -> None:
    with pytest.raises(InvalidInput, match=r"training\.regeneration:redrawing"):
        watermark_report.main(["--regenerate", "training.nothing:at_all"])


def test_people_who_do_not_exist_may_be_added(tmp_path: Path) -> None:
    faces = np.full((2, 128, 128, 3), 90, np.uint8)
    np.save(tmp_path / "shard-0000000.npy", faces)
    (one,) = watermark_report._renders(tmp_path, 256)
    assert one.shape == (256, 256, 3)


def test_drawings_are_the_same_each_time_and_differ_from_each_other() -> None:
    first, again = watermark_report.drawing(5, 64), watermark_report.drawing(5, 64)
    assert (first == again).all() and (first != watermark_report.drawing(6, 64)).any()


@pytest.mark.slow
@pytest.mark.parametrize(("size", "share"), [(256, 0.97), (512, 0.99), (1024, 0.99)])
def test_what_is_promised_holds_on_all_64_pictures(size: int, share: float) -> None:
    attacks = {name: watermark_report.ATTACKS[name] for name in watermark_report.PROMISED}
    pictures = watermark_report.test_pictures(size)
    found = watermark_report.measure(SpreadSpectrumWatermark(b"k" * 32), pictures, attacks)
    assert min(found.survived.values()) >= share * len(pictures)
    assert min(found.decibels) >= 38
