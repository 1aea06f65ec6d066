from dataclasses import replace

import numpy as np
import pytest
import torch

from imagine.backends.chooser import Chooser
from imagine.backends.embedded import LOCATOR_FOLDER, EmbeddedBackend, save_chooser
from imagine.core import Request
from imagine.errors import CorruptWeights, InvalidInput
from imagine.models.attribute_judge import AttributeJudge
from imagine.models.face_recogniser import FaceLocator, FaceRecogniser, aligned
from imagine.settings import Settings
from tests.backends.tiny_embedded import drawn, save_tiny

CROPS, OTHER = np.random.default_rng(0).integers(0, 255, (2, 2, 128, 128, 3), dtype=np.uint8)
PROMPT = "me, smiling"
WANTED = {"expression": ("smiling",)}


@pytest.fixture(scope="module")
def parts():
    """Networks nobody taught; the locator takes the middle half of a picture."""
    torch.manual_seed(0)
    locator = FaceLocator(width=8)
    torch.nn.init.zeros_(locator.head.weight)
    with torch.no_grad():
        locator.head.bias.copy_(torch.tensor([0.5, 0.0, 0.0, 0.0]))
    attributes = AttributeJudge({"expression": ["sad", "smiling"]}, width=8, features=16)
    return FaceRecogniser(width=8).eval(), locator.eval(), attributes.eval()


@pytest.fixture(scope="module")
def chooser(parts):
    return Chooser(*parts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, parts):
    """A model with a chooser."""
    folder = save_tiny(tmp_path_factory.mktemp("model"))
    save_chooser(folder, *parts)
    return folder


def load(folder, candidates, monkeypatch):
    monkeypatch.setenv("IMAGINE_CANDIDATES", str(candidates))
    return EmbeddedBackend.load(folder)


def wish(seed=1, beside=None):
    return Request(PROMPT, CROPS, seed, 3, 2.0, 0.5, (0.0, 1.0), beside=beside)


def in_picture(crop):
    """(3, 256, 256) with the crop where the locator looks."""
    picture = torch.zeros(3, 256, 256)
    face = torch.from_numpy(crop).permute(2, 0, 1).float() / 127.5 - 1
    picture[:, 64:192, 64:192] = face
    return picture


def test_whoever_is_in_the_picture_has_the_most_merit(chooser):
    pictures = torch.stack([in_picture(CROPS[0]), in_picture(OTHER[0])])
    first, second = (chooser.describe(crops) for crops in (CROPS[:1], OTHER[:1]))
    assert chooser.merits(pictures, first, {}, {}).argmax() == 0
    assert chooser.merits(pictures, second, {}, {}).argmax() == 1


def test_what_the_prompt_asks_has_merit_even_of_nobody(chooser, parts):
    with torch.inference_mode():
        pictures = torch.rand(6, 3, 128, 128) * 2 - 1
        smiles = parts[2](pictures)["expression"].softmax(1)[:, 1]
    assert chooser.merits(pictures, None, WANTED, {}).argmax() == smiles.argmax()
    assert not chooser.merits(pictures, None, {}, {}).any()


def test_looks_of_the_selfies_have_merit_where_the_wish_says_nothing_of_them(chooser):
    pictures = torch.rand(6, 3, 128, 128) * 2 - 1
    sad = {"expression": ("sad",)}
    kept = chooser.merits(pictures, None, {}, sad)
    assert kept.argmax() == chooser.merits(pictures, None, sad, {}).argmax()
    asked = chooser.merits(pictures, None, WANTED, {})
    assert torch.equal(chooser.merits(pictures, None, WANTED, sad), asked)


def test_glasses_and_hair_are_read_from_selfies_that_show_them_clearly():
    network = AttributeJudge(
        {"glasses": ["none", "round"], "hair_colour": ["black", "red", "blonde"]},
        width=8,
        features=16,
    ).eval()
    for head, scores in (("glasses", [0.0, 9.0]), ("hair_colour", [0.0, 0.0, 0.0])):
        torch.nn.init.zeros_(network.heads[head].weight)
        with torch.no_grad():
            network.heads[head].bias.copy_(torch.tensor(scores))
    assert Chooser(None, None, network).looks(CROPS) == {"glasses": ("round",)}


def test_a_located_face_is_cut_without_shear(parts):
    board = torch.rand(1, 3, 64, 64)
    theta = parts[1](board)
    assert theta.shape == (1, 2, 3)
    assert torch.allclose(aligned(board, theta, 32), board[:, :, 16:48, 16:48], atol=1e-5)


def test_one_of_the_candidates_is_finished_and_the_others_are_dropped(folder, monkeypatch):
    backend, alone = load(folder, 3, monkeypatch), load(folder, 1, monkeypatch)
    state = backend.prepare(wish())
    assert len(state.image) == 3
    assert backend.forward_rows(state) == 3 * alone.forward_rows(alone.prepare(wish()))
    (state,) = backend.denoise_step([state])
    assert len(state.image) == 3
    (state,) = backend.denoise_step([state])  # two thirds of three steps
    assert len(state.image) == len(state.estimate) == 1
    finished = backend.decode(backend.denoise_step([state])[0])
    singles = [
        alone.decode(drawn(alone, wish(seed))[0]).astype(int)
        for seed in (1, 1 + 7_368_787, 1 + 2 * 7_368_787)
    ]
    assert min(np.abs(finished - single).max() for single in singles) <= 1


def test_what_is_chosen_does_not_depend_on_company(folder, monkeypatch):
    backend = load(folder, 2, monkeypatch)
    alone = drawn(backend, wish(5))[0]
    _, second = drawn(backend, replace(wish(9), crops=OTHER), wish(5))
    assert torch.allclose(second.image, alone.image, atol=1e-5)  # sums in another order


def test_two_people_are_chosen_together(folder, monkeypatch):
    backend = load(folder, 2, monkeypatch)
    (state,) = drawn(backend, wish(beside=OTHER))
    assert state.image.shape == (1, 3, 128, 224)
    assert backend.decode(state).shape == (128, 224, 3)


def test_the_revision_says_among_how_many_was_chosen(folder, monkeypatch):
    one, three = (load(folder, n, monkeypatch).info.model_revision for n in (1, 3))
    assert three == f"{one}-of-3"


def test_without_a_chooser_every_wish_is_drawn_once(folder, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(folder, tmp_path / "plain")
    shutil.rmtree(tmp_path / "plain" / "chooser")
    assert len(load(tmp_path / "plain", 3, monkeypatch).prepare(wish()).image) == 1


@pytest.mark.parametrize("missing", ["chooser/recogniser", LOCATOR_FOLDER])
def test_half_a_chooser_is_corrupt_weights(folder, tmp_path, monkeypatch, missing):
    import shutil

    shutil.copytree(folder, tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / missing)
    with pytest.raises(CorruptWeights, match="git checkout"):
        load(tmp_path / "half", 3, monkeypatch)


@pytest.mark.parametrize("said", ["0", "17", "many", "-2"])
def test_a_number_of_candidates_that_cannot_be_is_refused(said, monkeypatch):
    monkeypatch.setenv("IMAGINE_CANDIDATES", said)
    with pytest.raises(InvalidInput, match="whole number from 1 to 16"):
        Settings()
