import pytest
import torch
from torch import nn

from imagine.backends import packed_linear
from imagine.backends.packed_linear import PackedLinear, can_pack, pack_linears

TOLERANCE = 1e-5  # two libraries add up 64 products in another order


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Linear(64, 48)


@pytest.mark.parametrize("shape", [(1, 64), (7, 64), (3, 5, 64)])
def test_a_packed_layer_gives_what_the_layer_gives(linear, shape):
    rows = torch.randn(shape)
    with torch.inference_mode():
        assert torch.allclose(PackedLinear.of(linear)(rows), linear(rows), atol=TOLERANCE)


def test_gelu_is_the_tanh_form(linear):
    rows = torch.randn(9, 64)
    packed = PackedLinear(linear.weight, linear.bias, gelu=True)
    with torch.inference_mode():
        plain = nn.functional.gelu(linear(rows), approximate="tanh")
        assert torch.allclose(packed(rows), plain, atol=TOLERANCE)


def test_a_row_has_the_same_bits_alone_and_among_others(linear):
    packed, rows = PackedLinear.of(linear), torch.randn(100, 64)
    if not packed.is_packed:
        pytest.skip("this build of torch has no oneDNN")
    with torch.inference_mode():
        together = packed(rows)
        assert all(torch.equal(packed(rows[:count]), together[:count]) for count in (1, 2, 33, 64))


def test_without_onednn_torchs_own_product_serves_and_that_is_said(linear, monkeypatch, caplog):
    def absent(*arguments):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", absent)
    packed_linear._has_onednn.cache_clear()
    try:
        packed = PackedLinear(linear.weight, linear.bias, gelu=True)
        assert not packed.is_packed and not can_pack(linear.weight)
        assert caplog.text.count("are not packed") == 1
        rows = torch.randn(4, 64)
        plain = nn.functional.gelu(linear(rows), approximate="tanh")
        assert torch.equal(packed(rows), plain.detach())
    finally:
        packed_linear._has_onednn.cache_clear()


def test_other_dtypes_and_devices_keep_torchs_own_product(linear):
    assert not can_pack(linear.weight.half())
    assert not can_pack(linear.weight.to("meta"))


def test_every_linear_layer_of_a_module_is_replaced_and_nothing_else(linear):
    module = nn.ModuleDict({"a": linear, "b": nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64))})
    rows = torch.randn(2, 64)
    before = module["a"](module["b"](rows)).detach()
    assert pack_linears(module) in (0, 2)  # none where oneDNN is not built in
    assert not torch.allclose(before, torch.zeros_like(before))
    with torch.inference_mode():
        assert torch.allclose(module["a"](module["b"](rows)), before, atol=TOLERANCE)
    assert isinstance(module["b"][1], nn.LayerNorm)
