import json

import numpy as np
import pytest
import torch

from imagine.backends.prompt_judge import AttributePromptJudge
from imagine.errors import InvalidInput
from training.attributes import (
    ATTRIBUTES,
    class_weights,
    disturb_pictures,
    load_renders,
    make_renders,
    mean_recall,
    measure_accuracy,
    save_judge,
    train_judge,
)
from training.clock import Stopwatch

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 200, 30)}


def made_up_renders(count=48):
    """Plain pictures whose colour is their clothing colour; everything else never changes."""
    names = [sorted(COLOURS)[index % 3] for index in range(count)]
    images = np.stack([np.full((64, 64, 3), COLOURS[name], np.uint8) for name in names])
    plain = dict.fromkeys(ATTRIBUTES, "any")
    return make_renders(images, [{**plain, "clothing_colour": name} for name in names])


class CountingClock(Stopwatch):
    """Is over after so many looks, however slow the machine."""

    def __init__(self, looks):
        super().__init__(1.0)
        self.looks, self.left = looks, looks

    @property
    def progress(self):
        return 1 - self.left / self.looks

    @property
    def is_over(self):
        self.left -= 1
        return self.left < 0


@pytest.fixture
def one_thread():
    """Tiny convolutions lose more by sharing threads with other programs than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_judge_learns_what_can_be_seen(tmp_path, one_thread):
    renders = made_up_renders()
    network = train_judge(renders, CountingClock(40), image_size=32, width=8)
    accuracy = measure_accuracy(network, renders)
    assert accuracy["clothing_colour"] > 0.9
    save_judge(tmp_path, network, accuracy)
    judge = AttributePromptJudge.load(tmp_path)
    seen = judge.probabilities([renders.images[0]])[0]["clothing_colour"]
    assert max(seen, key=seen.__getitem__) == sorted(COLOURS)[0]
    assert judge.accuracy["clothing_colour"] > 0.9


def test_mean_recall_does_not_let_a_common_class_hide_a_rare_one():
    truth = np.array([0] * 98 + [1] * 2)
    assert mean_recall(np.zeros(100, np.int64), truth) == 0.5


def test_rare_classes_weigh_more():
    renders = made_up_renders()
    renders.labels["clothing_colour"] = np.array([0] * 40 + [1] * 7 + [2])
    weights = class_weights(renders, "clothing_colour")
    assert weights[0] < weights[1] < weights[2]


def test_disturbed_pictures_keep_shape_and_range():
    images = made_up_renders(8).images
    disturbed = disturb_pictures(images, 48, np.random.default_rng(0))
    assert disturbed.shape == (8, 3, 48, 48)
    assert torch.isfinite(disturbed).all()
    assert disturbed.abs().max() <= 1.0


def test_people_kept_for_evaluation_never_teach_the_judge(tmp_path):
    np.save(tmp_path / "shard-0100000.npy", np.zeros((2, 8, 8, 3), np.uint8))
    record = {
        "person_seed": 100_000, "photo": 0, "scene_seed": 0, "kind": "selfie", "caption": "",
        "facts": dict.fromkeys(ATTRIBUTES, "any"), "landmarks": [], "face_box": [],
        "visible": True,
    }  # fmt: skip
    (tmp_path / "shard-0100000.jsonl").write_text((json.dumps(record) + "\n") * 2)
    with pytest.raises(InvalidInput, match="100000"):
        load_renders([tmp_path])


def test_an_empty_cache_is_refused_with_the_command_that_fills_it(tmp_path):
    with pytest.raises(InvalidInput, match=r"training\.people\.cache"):
        load_renders([tmp_path])
