import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from imagine.backends.base import draw_alone
from imagine.backends.embedded import EmbeddedBackend, save_model
from imagine.core import Request
from tests.training.test_trainer import record
from training.ablations import (
    VARIANTS,
    JoinedBackend,
    PlainDenoiser,
    join_attention,
    table,
    train_variant,
)
from training.people.cache import write_shard
from training.trainer import load_state

CROP = np.random.default_rng(1).integers(0, 255, (1, 128, 128, 3), dtype=np.uint8)


@pytest.fixture
def model(tmp_path) -> Path:
    torch.manual_seed(0)
    state = load_state(tmp_path / "none", "tiny", "cpu")
    for attention in state.denoiser._cross_attentions():
        torch.nn.init.constant_(attention.identity_gate, 0.5)
    torch.nn.init.normal_(state.denoiser.unpatches.project.weight, std=0.05)
    save_model(tmp_path / "model", state.denoiser, state.adapter)
    return tmp_path / "model"


def request(likeness: float = 0.7) -> Request:
    return Request("me in a forest", CROP, 3, 3, 2.0, likeness)


def test_the_plain_pass_draws_what_the_folded_one_draws(model):
    backend = EmbeddedBackend.load(model)
    folded = draw_alone(backend, request()).astype(int)
    vars(backend)["_folded"] = PlainDenoiser(backend._denoiser)
    plain = draw_alone(backend, request()).astype(int)
    assert np.abs(folded - plain).max() <= 1  # other sums, one level of 255
    assert plain.std() > 5


def test_joined_attention_draws_something_else_with_the_same_weights(model):
    joined = draw_alone(JoinedBackend.load(model), request()).astype(int)
    parallel = draw_alone(EmbeddedBackend.load(model), request()).astype(int)
    assert np.abs(joined - parallel).max() > 1


def test_joined_attention_without_the_person_sees_the_prompt_only():
    torch.manual_seed(0)
    denoiser = join_attention(load_state(Path("nowhere"), "tiny", "cpu").denoiser)
    (attention, *_) = denoiser._cross_attentions()
    hidden = torch.randn(1, 4, 64)
    text, person, other = ((torch.randn(1, 2, 3, 32), torch.randn(1, 2, 3, 32)) for _ in range(3))
    all_shown = torch.ones(1, 3, dtype=torch.bool)

    def look(who, scale):
        return attention(hidden, text, all_shown, who, all_shown, torch.tensor([scale]))

    torch.testing.assert_close(look(person, 0.0), look(other, 0.0))
    assert not torch.allclose(look(person, 1.0), look(other, 1.0))


def arguments(folder: Path) -> argparse.Namespace:
    photos = np.random.default_rng(0).integers(0, 255, (8, 128, 128, 3), dtype=np.uint8)
    write_shard(
        folder,
        "shard-0000000",
        photos,
        [record(person, photo) for person in (0, 1) for photo in range(4)],
    )
    return argparse.Namespace(
        data=folder,
        out=folder / "out",
        pictures=16,
        device="cpu",
        model="tiny",
        batch_size=4,
        learning_rate=0.001,
        recogniser=None,
        start_from=None,
        compile=False,
    )


def test_a_variant_sees_its_pictures_and_is_kept_when_asked_for_again(tmp_path):
    given = arguments(tmp_path)
    (joined,) = (variant for variant in VARIANTS if variant.joined)
    model = train_variant(joined, given)
    lines = (given.out / joined.folder / "run" / "stages.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["images"] for line in lines) in (16, 20)  # whole batches
    assert EmbeddedBackend.load(model).info.traits == "trained"
    assert train_variant(joined, given) == model


def test_all_variants_share_out_the_same_number_of_pictures():
    assert len({variant.folder for variant in VARIANTS}) == len(VARIANTS)
    for variant in VARIANTS:
        assert sum(share for _, share in variant.stages) == pytest.approx(1.0)


def test_the_table_has_a_line_for_each_variant():
    row = {
        "face_found_at_once": 0.8,
        "auc": 0.7,
        "auc_where_found": 0.8,
        "copy_paste": None,
        "near_copies": 0.0,
        "prompt": {"mean": 0.5},
    }
    lines = table({variant.name: row for variant in VARIANTS}, 16).splitlines()
    assert lines[0].startswith("| 16 pictures each |")
    assert lines[2] == "| full | 0.800 | 0.700 | 0.800 | - | 0.000 | 0.500 |"
    assert len(lines) == 2 + len(VARIANTS)
