import torch

from imagine.models.blocks import attend
from imagine.models.parallel_attention import ParallelAttention, fuse_sources


def inputs(batch: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "hidden": torch.randn(batch, 6, 32),
        "text": torch.randn(batch, 4, 20),
        "identity": torch.randn(batch, 5, 24),
    }


def run(attention: ParallelAttention, scale: torch.Tensor, **given: torch.Tensor) -> torch.Tensor:
    rows = len(given["hidden"])
    return attention(
        given["hidden"],
        attention.text(given["text"]),
        torch.ones(rows, 4, dtype=torch.bool),
        attention.identity(given["identity"]),
        torch.ones(rows, 5, dtype=torch.bool),
        scale,
    )


def test_a_fresh_identity_branch_changes_nothing():
    attention = ParallelAttention(32, 2, text_width=20, identity_width=24)
    given = inputs()
    other = given | {"identity": torch.randn(2, 5, 24)}
    assert torch.equal(
        run(attention, torch.ones(2), **given), run(attention, torch.ones(2), **other)
    )


def test_identity_scale_acts_on_its_own_row_only():
    attention = ParallelAttention(32, 2, text_width=20, identity_width=24)
    torch.nn.init.ones_(attention.identity_gate)
    given = inputs()
    full = run(attention, torch.tensor([1.0, 1.0]), **given)
    half = run(attention, torch.tensor([1.0, 0.5]), **given)
    assert torch.equal(full[0], half[0])
    assert not torch.allclose(full[1], half[1])


def test_fusion_is_a_weighted_sum_of_sources():
    one, two = torch.ones(1, 2, 3), torch.full((1, 2, 3), 2.0)
    fused = fuse_sources([one, two], [torch.ones(1, 1, 1), torch.full((1, 1, 1), 0.5)])
    assert torch.equal(fused, torch.full((1, 2, 3), 2.0))


def test_the_training_form_of_attention_equals_the_fused_kernel():
    torch.manual_seed(0)
    query, key = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8)
    mask = torch.tensor([[True] * 7, [True] * 3 + [False] * 4])
    training = attend(query, key, key, mask)
    with torch.no_grad():
        fused = attend(query, key, key, mask)
    # float32 sums in another order
    torch.testing.assert_close(training, fused, atol=1e-5, rtol=1e-5)
