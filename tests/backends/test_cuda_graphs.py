"""The bookkeeping of recordings, with a stand-in that plays a call by making it again."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from imagine.backends import cuda_graphs
from imagine.backends.cuda_graphs import CALLS_BEFORE_RECORDING, ShapedGraphs


@dataclass(frozen=True)
class Conditioning:
    owners: tuple[int, ...]
    keys: Tensor
    mask: Tensor | None = None


class Played:
    """Counts how often the work itself runs, and how often a recording is played."""

    def __init__(self):
        self.calls = self.recorded = self.plays = 0

    def forward(self, sample, *, conditioning, scale=1.0):
        self.calls += 1
        return (sample * scale + conditioning["who"].keys.sum(),)

    def record(self, call):
        self.recorded += 1
        (result,) = call()

        def play():
            self.plays += 1
            result.copy_(call()[0])

        return play, (result,)


@pytest.fixture
def played():
    return Played()


@pytest.fixture
def graphs(played):
    return ShapedGraphs(played.forward, played.record)


def ask(graphs, value, rows=2, owners=(1, 2), **rest):
    who = {"who": Conditioning(owners, torch.full((rows, 3), float(value)))}
    return graphs(torch.full((rows, 4), float(value)), conditioning=who, **rest)[0]


def test_a_shape_seen_often_is_recorded_once_and_then_played(graphs, played):
    for value in range(CALLS_BEFORE_RECORDING + 5):
        expected = value + 2 * 3 * value
        assert torch.equal(ask(graphs, value), torch.full((2, 4), float(expected)))
    assert (played.recorded, played.plays) == (1, 5)


def test_a_result_belongs_to_the_caller_and_stays_when_the_next_pass_is_played(graphs):
    kept = [ask(graphs, value) for value in range(CALLS_BEFORE_RECORDING + 3)]
    assert [float(result[0, 0]) for result in kept] == [7.0 * value for value in range(len(kept))]


def test_what_is_asked_lies_in_other_tensors_than_the_caller_s(graphs, played):
    for value in range(CALLS_BEFORE_RECORDING + 1):
        ask(graphs, value)
    (recording,) = graphs._recordings.values()
    before = [tensor.data_ptr() for tensor in recording.inputs]
    ask(graphs, 9)
    assert [tensor.data_ptr() for tensor in recording.inputs] == before
    assert float(recording.inputs[0].max()) == 9.0


def test_other_people_use_the_same_recording_and_get_their_own_result(graphs, played):
    for value in range(CALLS_BEFORE_RECORDING + 1):
        ask(graphs, value, owners=(value, value + 1))
    assert float(ask(graphs, 5, owners=(70, 71))[0, 0]) == 35.0
    assert played.recorded == 1


@pytest.mark.parametrize("change", [{"rows": 3}, {"scale": 2.0}])
def test_another_shape_or_number_is_not_served_by_a_recording(graphs, played, change):
    for value in range(CALLS_BEFORE_RECORDING + 1):
        ask(graphs, value)
    rows, scale = change.get("rows", 2), change.get("scale", 1.0)
    assert float(ask(graphs, 1, **change)[0, 0]) == scale + 3 * rows
    assert (len(graphs), played.plays) == (1, 1)


def test_the_recording_used_longest_ago_makes_room(graphs, played, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "MOST_GRAPHS", 2)
    for rows in (1, 2, 3):
        for _ in range(CALLS_BEFORE_RECORDING + 1):
            ask(graphs, 1, rows=rows)
    assert (len(graphs), played.recorded) == (2, 3)
    ask(graphs, 1, rows=1)
    assert played.recorded == 4


@pytest.mark.gpu
def test_on_a_gpu_a_played_pass_equals_the_pass_itself():
    linear = torch.nn.Linear(64, 64, device="cuda")
    graphs = ShapedGraphs(linear.forward)
    with torch.inference_mode():
        for _ in range(CALLS_BEFORE_RECORDING + 3):
            rows = torch.randn(8, 64, device="cuda")
            assert torch.allclose(graphs(rows), linear(rows), atol=1e-6)
    assert len(graphs) == 1
