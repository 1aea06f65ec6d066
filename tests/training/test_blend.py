import pytest
import torch

from imagine.backends.embedded import EmbeddedBackend, save_model
from imagine.errors import InvalidInput
from imagine.models.denoiser import Denoiser
from training.blend import blend
from training.trainer import load_state


@pytest.fixture
def two(tmp_path):
    folders = tmp_path / "first", tmp_path / "second"
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        state = load_state(tmp_path / "run", "tiny", "cpu")
        save_model(folder, state.denoiser, state.adapter)
    return folders


def weight(folder):
    loaded = Denoiser.from_pretrained(folder / "denoiser", local_files_only=True)
    return loaded.get_parameter("time.0.weight").float()


def test_a_blend_lies_between_its_ends_and_draws(two, tmp_path):
    first, second = two
    for share in (0.0, 0.25, 1.0):
        blend(first, second, share, tmp_path / "out")
        expected = torch.lerp(weight(first), weight(second), share)
        torch.testing.assert_close(weight(tmp_path / "out"), expected, atol=1e-3, rtol=1e-3)
    picture = EmbeddedBackend.load(tmp_path / "out").draw("me", None, num_inference_steps=2)
    assert picture.shape == (128, 128, 3)


def test_a_share_outside_of_the_line_is_refused(two, tmp_path):
    with pytest.raises(InvalidInput, match="Give 0"):
        blend(*two, 1.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_models_of_other_shapes_are_refused(two, tmp_path):
    torch.manual_seed(0)
    state = load_state(tmp_path / "run", "mini", "cpu")
    save_model(tmp_path / "third", state.denoiser, state.adapter)
    for ends in ((two[0], tmp_path / "third"), (tmp_path / "third", two[0])):
        with pytest.raises(InvalidInput, match="differ in shape"):
            blend(*ends, 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()
