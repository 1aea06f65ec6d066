import numpy as np
import pytest
import torch

from imagine.errors import CorruptWeights, MissingWeights
from imagine.identity.align import face_of_crop, mask_background
from imagine.identity.ranker import LikenessRanker
from imagine.models.face_recogniser import FaceRecogniser

RANDOM = np.random.default_rng(0)
COARSE = RANDOM.integers(0, 255, (3, 16, 16, 3), dtype=np.uint8)
CROPS = np.stack([mask_background(np.kron(c, np.ones((8, 8, 1), np.uint8))) for c in COARSE])


@pytest.fixture(scope="module")
def ranker():
    torch.manual_seed(0)
    return LikenessRanker(FaceRecogniser())


def test_a_selfie_is_liker_to_itself_than_noise_is(ranker):
    face = face_of_crop(CROPS[0])
    noise = RANDOM.integers(0, 255, (128, 128, 3), dtype=np.uint8)
    own = ranker.likeness(CROPS[0], face, CROPS[:1])
    assert own == pytest.approx(1.0, abs=0.02)  # sampled twice, once through the alignment
    assert ranker.likeness(noise, face, CROPS[:1]) < own


def test_what_is_around_the_head_does_not_count(ranker):
    picture = CROPS[0].copy()
    picture[:4, :4] = 255
    face = face_of_crop(picture)
    assert ranker.likeness(picture, face, CROPS) == ranker.likeness(CROPS[0], face, CROPS)


def test_missing_weights_name_their_folder_and_the_command(tmp_path):
    with pytest.raises(MissingWeights, match=r"training\.recogniser"):
        LikenessRanker.load(tmp_path)


def test_broken_weights_are_named(tmp_path):
    FaceRecogniser().save_pretrained(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"half a file")
    with pytest.raises(CorruptWeights, match="git checkout"):
        LikenessRanker.load(tmp_path)


def test_what_training_exports_is_what_ranks(tmp_path, ranker):
    from training.recogniser import export

    export(ranker._recogniser, tmp_path / "ranker")
    face = face_of_crop(CROPS[1])
    loaded = LikenessRanker.load(tmp_path / "ranker").likeness(CROPS[1], face, CROPS)
    assert loaded == pytest.approx(ranker.likeness(CROPS[1], face, CROPS), abs=0.01)
