import numpy as np
import pytest
import torch

from imagine.backends.prompt_judge import AttributePromptJudge, asked_attributes, to_network_input
from imagine.errors import CorruptWeights, MissingWeights
from imagine.models.attribute_judge import AttributeJudge


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("smiling softly, at home", {"expression": ("soft smile", "smiling"),
                                     "place": ("apartment",)}),
        ("NOT smiling", {"expression": ("neutral",)}),
        ("me in a city street at night", {"place": ("city",)}),
        ("a man with long red hair in a blue shirt", {"hair_colour": ("red", "auburn"),
                                                      "clothing_colour": ("blue",)}),
        ("my hair is dyed green", {"hair_colour": ("green",)}),
        ("with pink hair", {"hair_colour": ("pink",)}),
        ("dressed in red", {"clothing_colour": ("red",)}),
        ("a black and white photo", {"style": ("black and white",)}),
        ("in black and white", {"style": ("black and white",)}),
        ("wearing sunglasses and a hat", {"glasses": ("sunglasses",), "hat": ("fedora",)}),
        ("without glasses", {"glasses": ("none",)}),
        ("in a green laboratory", {"place": ("lab",)}),
        ("riding a dragon", {}),
        ("", {}),
    ],
)  # fmt: skip
def test_a_prompt_is_read_for_what_can_be_seen(prompt, asked):
    assert asked_attributes(prompt) == asked


def judge_that_sees(**seen):
    """A judge of constant opinion: attribute -> (classes, logits)."""
    network = AttributeJudge({name: list(logits) for name, logits in seen.items()}, image_size=32)
    with torch.no_grad():
        for name, logits in seen.items():
            network.heads[name].weight.zero_()
            network.heads[name].bias.copy_(torch.tensor(list(logits.values())))
    return AttributePromptJudge(network)


def test_fit_is_the_mean_probability_of_what_was_asked():
    judge = judge_that_sees(
        hat={"none": 0.0, "fedora": 0.0}, glasses={"none": -20.0, "round": 0.0, "square": 0.0}
    )
    image = np.zeros((20, 20, 3), np.uint8)
    assert judge.fit(image, "with glasses and a hat") == pytest.approx(0.75, abs=1e-4)


def test_a_prompt_the_judge_knows_nothing_of_has_no_fit():
    judge = judge_that_sees(hat={"none": 0.0, "fedora": 0.0})
    assert judge.fit(np.zeros((16, 16, 3), np.uint8), "smiling in a park") is None


def test_a_saved_judge_says_the_same_after_loading(tmp_path):
    network = AttributeJudge({"hat": ["none", "fedora"]}, image_size=32, accuracy={"hat": 0.9})
    network.save_pretrained(tmp_path)
    image = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    loaded = AttributePromptJudge.load(tmp_path)
    (after,) = loaded.probabilities([image])
    (before,) = AttributePromptJudge(network).probabilities([image])
    assert after["hat"] == pytest.approx(before["hat"], abs=1e-5)  # sums in another order
    assert loaded.accuracy == {"hat": 0.9}


def test_a_missing_judge_is_named_with_what_to_do(tmp_path):
    with pytest.raises(MissingWeights, match=r"training\.attributes"):
        AttributePromptJudge.load(tmp_path / "nowhere")


def test_a_damaged_judge_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CorruptWeights, match="git checkout"):
        AttributePromptJudge.load(tmp_path)


def test_a_picture_that_is_no_square_is_continued_by_its_edges_and_not_pulled():
    upright = np.full((32, 16, 3), 100, np.uint8)
    upright[:, :2], upright[:, -2:] = 0, 255
    (seen,) = to_network_input([upright], 32)
    levels = ((seen[0, 5] + 1.0) * 127.5).round().tolist()
    assert levels == [0] * 10 + [100] * 12 + [255] * 10
    (lying,) = to_network_input([upright.transpose(1, 0, 2)], 32)
    assert torch.equal(lying, seen.transpose(1, 2))
