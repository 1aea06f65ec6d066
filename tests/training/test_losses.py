import torch

from training.losses import flow_matching_loss, sample_sigmas


def test_noise_levels_stay_inside_their_range_and_lean_to_noise():
    torch.manual_seed(0)
    sigmas = sample_sigmas(4096, "cpu")
    assert 0 < sigmas.min() < sigmas.max() < 1
    assert 0.6 < sigmas.median() < 0.7


def test_a_perfect_prediction_costs_nothing():
    clean = torch.randn(2, 3, 8, 8)
    loss = flow_matching_loss(clean, clean, torch.tensor([0.5, 0.9]), torch.ones(2, 1, 8, 8))
    assert loss == 0


def test_the_clean_image_error_becomes_the_velocity_error():
    clean, wrong = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.3)
    sigma, noise = 0.6, torch.randn(1, 3, 4, 4)
    noisy = (1 - sigma) * clean + sigma * noise
    velocity_error = ((noisy - wrong) / sigma - (noisy - clean) / sigma).square().mean()
    loss = flow_matching_loss(wrong, clean, torch.tensor([sigma]), torch.ones(1, 1, 4, 4))
    torch.testing.assert_close(loss, velocity_error)


def test_errors_inside_the_face_weigh_more():
    clean, wrong = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    wrong[..., :2] = 1.0
    weights = torch.ones(1, 1, 4, 4)
    plain = flow_matching_loss(wrong, clean, torch.tensor([0.5]), weights)
    weights[..., :2] = 3.0
    assert flow_matching_loss(wrong, clean, torch.tensor([0.5]), weights) > plain
