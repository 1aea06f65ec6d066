import pytest
import torch

from imagine.models.blocks import OverlappingUnpatches
from imagine.models.denoiser import Conditioning, Denoiser
from imagine.models.identity_adapter import IdentityAdapter

SMALL = {"width": 64, "depth": 2, "heads": 2, "identity_width": 32, "bottleneck": 16}


@pytest.fixture
def denoiser() -> Denoiser:
    torch.manual_seed(0)
    model = Denoiser(**SMALL).eval()
    torch.nn.init.normal_(model.unpatches.project.weight, std=0.02)
    for block in model.blocks:
        torch.nn.init.ones_(block.cross.identity_gate)
    return model


def conditioning(model: Denoiser, rows: int, identity_shown: bool = True) -> Conditioning:
    torch.manual_seed(1)
    return model.condition(
        torch.randn(rows, 6, 384),
        torch.ones(rows, 6, dtype=torch.bool),
        torch.randn(rows, 9, 32),
        torch.full((rows, 9), identity_shown),
        torch.ones(rows),
    )


@torch.no_grad()
def test_the_estimate_has_the_shape_of_the_image(denoiser):
    images = torch.randn(2, 3, 128, 128)
    estimate = denoiser(images, torch.tensor([0.9, 0.2]), conditioning(denoiser, 2))
    assert estimate.shape == images.shape


@torch.no_grad()
def test_rows_at_different_noise_levels_do_not_touch_each_other(denoiser):
    images, sigmas = torch.randn(2, 3, 128, 128), torch.tensor([0.9, 0.2])
    known = conditioning(denoiser, 2)
    before = denoiser(images, sigmas, known)
    after = denoiser(images, torch.tensor([0.9, 0.7]), known)
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


@torch.no_grad()
def test_a_row_without_a_person_does_not_depend_on_identity_tokens(denoiser):
    images, sigmas = torch.randn(1, 3, 128, 128), torch.tensor([0.5])
    text, mask = torch.randn(1, 6, 384), torch.ones(1, 6, dtype=torch.bool)
    hidden = torch.zeros(1, 9, dtype=torch.bool)
    one = denoiser.condition(text, mask, torch.randn(1, 9, 32), hidden, torch.ones(1))
    two = denoiser.condition(text, mask, torch.randn(1, 9, 32), hidden, torch.ones(1))
    assert torch.equal(denoiser(images, sigmas, one), denoiser(images, sigmas, two))


def test_a_model_for_256_pixels_is_only_another_configuration():
    model = Denoiser(image_size=256, patch_size=32, **SMALL).eval()
    estimate = model(torch.randn(1, 3, 256, 256), torch.tensor([0.5]), conditioning(model, 1))
    assert estimate.shape == (1, 3, 256, 256)


def test_overlapping_patches_cover_every_pixel():
    layer = OverlappingUnpatches(width=8, patch=16, channels=1)
    torch.nn.init.zeros_(layer.project.weight)
    torch.nn.init.ones_(layer.project.bias)
    covered = layer(torch.zeros(1, 64, 8), (128, 128))
    assert covered.min() == 1.0  # each pixel lies in one to four patches
    assert covered.max() == 4.0


def test_every_photo_becomes_one_global_token_and_one_per_patch():
    adapter = IdentityAdapter(width=32, depth=1, heads=2, bottleneck=16)
    tokens = adapter(torch.zeros(3, 3, 96, 96))
    assert tokens.shape == (3, 65, 32) == (3, adapter.tokens_per_photo, 32)


def test_models_survive_saving_and_loading(tmp_path, denoiser):
    denoiser.save_pretrained(tmp_path)
    again = Denoiser.from_pretrained(tmp_path, local_files_only=True, low_cpu_mem_usage=False)
    assert list(tmp_path.glob("*.safetensors"))
    assert not list(tmp_path.glob("*.bin"))
    for name, tensor in denoiser.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
