import torch

from training.critic import WARM_UP_STEPS, CriticTraining

THETAS = torch.tensor([[[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]]).repeat(4, 1, 1)


def checks(cells):
    """(4, 3, 64, 64) black and white squares."""
    line = (torch.arange(64) // (64 // cells)) % 2
    board = (line[:, None] ^ line[None]).float() * 2 - 1
    return board.expand(4, 3, 64, 64).clone()


def taught(path=None):
    torch.manual_seed(0)
    training = CriticTraining("cpu", path, width=8)
    training.steps = WARM_UP_STEPS  # its word counts in full
    for _ in range(60):
        training.loss(checks(4), checks(16), THETAS)
    return training


def test_photos_pass_and_drawn_pictures_do_not():
    training = taught()
    drawn = training.loss(checks(4).requires_grad_(), checks(16), THETAS)
    assert drawn > training.loss(checks(16).requires_grad_(), checks(16), THETAS) + 0.5


def test_its_gradient_makes_a_drawn_picture_pass():
    training = taught()
    picture = checks(4).requires_grad_()
    before = training.loss(picture, checks(16), THETAS)
    before.backward()
    assert picture.grad is not None
    moved = picture.detach() - 0.2 * picture.grad / picture.grad.abs().max()
    with torch.no_grad():
        marks = [-sum(m.mean() for m in training.critic(p, THETAS)) for p in (picture, moved)]
    assert marks[1] < marks[0]
    assert all(p.grad is None for p in training.critic.parameters())


def test_it_counts_for_little_at_first():
    torch.manual_seed(0)
    training = CriticTraining("cpu", width=8)
    first = training.loss(checks(4).requires_grad_(), checks(16), THETAS)
    with torch.no_grad():
        marks = training.critic(checks(4), THETAS)
    whole = -torch.stack([mark.mean() for mark in marks]).mean()
    torch.testing.assert_close(first.detach(), whole / WARM_UP_STEPS, atol=1e-4, rtol=0.2)


def test_it_goes_on_where_it_was_saved(tmp_path):
    path = tmp_path / "critic.pt"
    training = taught(path)
    training.save()
    again = CriticTraining("cpu", path, width=8)
    assert again.steps == training.steps
    for name, tensor in training.critic.state_dict().items():
        assert torch.equal(tensor, again.critic.state_dict()[name]), name
