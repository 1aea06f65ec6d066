from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training import regeneration


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(regeneration._pictures(None)[0])


def test_the_shipped_model_draws_the_same_person_again_and_not_the_same_pixels(
    photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regeneration, "STEPS", 2)
    brought = regeneration.redrawing()
    assert [*brought.attacks] == [
        f"shipped model, noise {sigma:g}" for sigma in regeneration.SIGMAS
    ]
    again = brought.attacks["shipped model, noise 0.2"](photo, np.random.default_rng(0))
    before, after = np.asarray(photo, float), np.asarray(again, float)
    assert after.shape == before.shape and 3 < np.abs(before - after).mean() < 30
    distance = brought.distance(np.asarray(photo), np.asarray(again))
    assert distance is not None and distance < 0.6


def test_the_autoencoder_is_taught_on_renders_and_needs_some(
    photo: Image.Image, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="no shards"):
        regeneration.taught_autoencoder(tmp_path, 1)
    np.save(tmp_path / "shard-0000000.npy", np.full((4, 128, 128, 3), 90, np.uint8))
    coder = regeneration.taught_autoencoder(tmp_path, 2)
    assert regeneration._through(coder, photo).size == photo.size
    assert len(regeneration._pictures(None)) >= 8
