from __future__ import annotations

import pytest

from imagine.provenance import watermark_report
from imagine.provenance.spread_spectrum import SpreadSpectrumWatermark


def test_the_report_counts_what_survived_per_size(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {name: watermark_report.ATTACKS[name] for name in ("untouched", "through 64 x 64")}
    monkeypatch.setattr(watermark_report, "ATTACKS", few)
    monkeypatch.setattr(
        watermark_report, "test_pictures", lambda size: [watermark_report.drawing(2, size)] * 2
    )
    watermark_report.main(["--sizes", "128", "--pictures", "1", "--false-reads", "3"])
    told = capsys.readouterr().out
    assert "128 px, 1 pictures" in told and "PSNR dB" in told
    assert "untouched                  1 of 1   100.0 %" in told
    assert "0 false reads in 3 unmarked crops" in told


def test_drawings_are_the_same_each_time_and_differ_from_each_other() -> None:
    first, again = watermark_report.drawing(5, 64), watermark_report.drawing(5, 64)
    assert (first == again).all() and (first != watermark_report.drawing(6, 64)).any()


@pytest.mark.slow
@pytest.mark.parametrize(("size", "share"), [(256, 0.97), (512, 0.99), (1024, 0.99)])
def test_what_is_promised_holds_on_all_64_pictures(size: int, share: float) -> None:
    promised = ["JPEG q75", "JPEG q50", "0.5x", "WebP 80", "brightness +15 %"]
    promised += ["screenshot 0.75x q80", "mirrored"]
    attacks = {name: watermark_report.ATTACKS[name] for name in promised}
    pictures = watermark_report.test_pictures(size)
    found = watermark_report.measure(SpreadSpectrumWatermark(b"k" * 32), pictures, attacks)
    assert min(found.survived.values()) >= share * len(pictures)
    assert min(found.decibels) >= 38
