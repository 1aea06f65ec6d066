from dataclasses import replace

import numpy as np
import pytest
import torch

from imagine.models.attribute_judge import AttributeJudge
from imagine.models.face_recogniser import FaceRecogniser
from tests.training.tiny_photos import NoWords, numbered_record
from training.attributes import half_of
from training.datasets import PairedPhotos
from training.people.cache import write_shard
from training.people.switched import AGED
from training.rewards import Teachers, wished_facts
from training.trainer import drawn_estimate, load_state

SMILE = "me smiling in a park"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three people of one colour each, four photos a person."""
    folder = tmp_path_factory.mktemp("people")
    random = np.random.default_rng(0)
    looks = random.integers(0, 255, (3, 1, 8, 8, 3)).repeat(4, axis=1).reshape(12, 8, 8, 3)
    images = looks.repeat(16, axis=1).repeat(16, axis=2).astype(np.uint8)
    facts = {"expression": "smiling", "place": "forest"}
    records = [numbered_record(number, 4, caption=SMILE, facts=facts) for number in range(12)]
    write_shard(folder, "shard-0000000", images, records)
    return PairedPhotos(folder, NoWords(), "cpu", 0)


@pytest.fixture
def batch(photos):
    torch.manual_seed(0)
    return photos.sample(6, same_photo=0.0, high_quality=False)


def test_the_right_person_is_rewarded(photos, batch):
    torch.manual_seed(0)
    teachers = Teachers([FaceRecogniser(8).eval().requires_grad_(False)], None, photos)
    own = teachers.loss(batch.images, batch.thetas, batch.records)
    somebody_else = [
        next(r for r in batch.records if r.person_seed != record.person_seed)
        for record in batch.records
    ]
    assert own < teachers.loss(batch.images, batch.thetas, somebody_else)


def test_whoever_is_decades_older_need_not_look_like_the_selfies(photos, batch):
    teachers = Teachers([FaceRecogniser(8).eval().requires_grad_(False)], None, photos)
    older = [replace(record, kind=AGED) for record in batch.records]
    assert teachers.loss(batch.images, batch.thetas, older) == 0
    some = [*older[:3], *batch.records[3:]]
    assert teachers.loss(batch.images, batch.thetas, some) > 0


def test_what_the_caption_names_is_rewarded_and_nothing_else(photos, batch):
    torch.manual_seed(0)
    network = AttributeJudge({"expression": ["sad", "smiling"], "place": ["forest", "park"]})
    network.eval().requires_grad_(False)
    teachers = Teachers([], network, photos)

    def missed():
        torch.manual_seed(1)  # pictures are moved and softened before they are looked at
        return teachers.loss(batch.images, batch.thetas, batch.records)

    with torch.no_grad():
        smile = network.heads["expression"].bias
        place = network.heads["place"].bias
        smile += torch.tensor([0.0, 9.0])
        happy = missed()
        place += torch.tensor([0.0, 9.0])  # the photos do not show the park their caption names
        elsewhere = missed()
        smile += torch.tensor([18.0, 0.0])
        sad = missed()
    assert happy == elsewhere < sad


def test_facts_count_only_where_the_caption_asks_for_them():
    facts = {"expression": "smiling", "glasses": "round", "place": "park"}
    assert wished_facts(SMILE, facts) == {"expression": "smiling", "place": "park"}
    assert wished_facts("me", facts) == {}


def test_the_gradient_of_a_drawn_picture_reaches_model_and_adapter(photos, batch, tmp_path):
    torch.manual_seed(0)
    state = load_state(tmp_path, "tiny", "cpu")
    torch.nn.init.normal_(state.denoiser.unpatches.project.weight, std=0.02)
    for name, parameter in state.denoiser.named_parameters():
        if name.endswith("identity_gate"):
            torch.nn.init.ones_(parameter)
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        estimate = drawn_estimate(
            state.denoiser, state.adapter, batch, slice(0, 3), np.random.default_rng(0)
        )
    assert estimate.shape == (3, 3, 128, 128)
    assert estimate.abs().max() <= 1.0
    estimate.square().mean().backward()
    for module in (state.denoiser, state.adapter):
        moved = [p.grad for p in module.parameters() if p.grad is not None and p.grad.any()]
        assert len(moved) > 0.5 * len(list(module.parameters()))


def test_both_halves_have_people_to_learn_from_and_people_kept_aside():
    halves = {half: {seed % 12 for seed in range(240) if half_of(seed) == half}
              for half in ("first", "second")}  # fmt: skip
    assert halves == {"first": set(range(12)), "second": set(range(12))}
