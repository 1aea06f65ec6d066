import importlib.util

import numpy as np
import pytest

from training.people.assets import assets_path
from training.people.basis import basis_path
from training.people.glasses import SHAPES, glasses_parts
from training.people.person import sample_person
from training.people.scene import STYLES, sample_scene
from training.people.styles import apply_style


@pytest.fixture(scope="module")
def renderer():
    if not assets_path().exists():
        pytest.skip("the people assets are not here; set IMAGINE_PEOPLE_ASSETS")
    if not basis_path().exists():
        pytest.skip("the people basis is not built; run training.people.preview once")
    if importlib.util.find_spec("moderngl") is None:
        pytest.skip("moderngl is not installed; pip install 'imagine-yourself[train]'")
    from training.people.renderer import Renderer

    try:
        return Renderer(size=64)
    except Exception as error:
        pytest.skip(f"no EGL context: {error}")


def test_a_photo_is_the_same_each_time_and_its_centre_is_skin(renderer) -> None:
    person, other = sample_person(3), sample_person(4)
    scene = sample_scene(person, 1, "selfie")
    first = renderer.photograph(person, scene, 64)
    renderer.photograph(other, sample_scene(other, 0), 64)
    again = renderer.photograph(person, scene, 64)
    assert (first.image == again.image).all()
    left, top, right, bottom = (int(v) for v in first.face_box)
    red, green, blue = first.image[top:bottom, left:right].reshape(-1, 3).mean(0)
    assert red > green > blue and red > 60


def test_landmarks_stand_in_the_pictures_order(renderer) -> None:
    person = sample_person(7)
    photo = renderer.photograph(person, sample_scene(person, 0, "selfie"), 128)
    eyes, nose, mouth = photo.landmarks[:2], photo.landmarks[2], photo.landmarks[3:]
    assert photo.visible
    assert eyes[0, 0] < eyes[1, 0] and mouth[0, 0] < mouth[1, 0]
    assert eyes[:, 1].max() < nose[1] < mouth[:, 1].min()


def test_dark_skin_is_lit_as_well_as_light_skin(renderer) -> None:
    people = [sample_person(seed) for seed in range(30)]
    levels = {"light": [], "dark": []}
    for person in people:
        if person.tone_word in levels and len(levels[person.tone_word]) < 4:
            photo = renderer.photograph(person, sample_scene(person, 0, "selfie"), 64)
            x, y = photo.landmarks[2].astype(int)
            levels[person.tone_word].append(photo.image[y - 5 : y + 5, x - 5 : x + 5].mean())
    assert np.mean(levels["dark"]) > 0.45 * np.mean(levels["light"])
    assert min(levels["dark"]) > 45


@pytest.mark.parametrize("style", STYLES)
def test_every_style_changes_or_keeps_a_picture_without_breaking_it(style: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    styled = apply_style(image, style, 0.0, 0.0, np.random.default_rng(0))
    assert styled.shape == image.shape and styled.dtype == np.uint8
    assert (styled == image).all() == (style == "colour photo")


@pytest.mark.parametrize("kind", SHAPES)
def test_glasses_stand_before_both_eyes(kind: str) -> None:
    left, right = np.array([0.31, 0, 1.2]), np.array([-0.31, 0, 1.2])
    parts = glasses_parts(kind, left, right, 1.4, 1.4, np.array([0, 0.05, 1.5]))
    points, normals, triangles = parts["lenses"]
    assert (points[:, 2] > 1.4).all()
    assert triangles.max() < len(points)
    assert np.linalg.norm(normals, axis=1) == pytest.approx(np.ones(len(normals)), abs=1e-5)
