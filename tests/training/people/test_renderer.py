import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from training.people.assets import assets_path
from training.people.basis import basis_path
from training.people.camera import Lens
from training.people.glasses import SHAPES, glasses_parts
from training.people.person import HAIR_COLOURS, sample_person
from training.people.scene import LAMPS, STYLES, sample_scene
from training.people.styles import apply_style

if importlib.util.find_spec("moderngl") is not None:
    from training.people.renderer import cloth_texture, noise_tile


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


def grooming(seed: int, **traits):
    return replace(sample_person(seed), **traits)


def test_a_beard_darkens_the_chin_and_grows_out_of_it(renderer) -> None:
    shaved = grooming(7, sex="man", beard="none", beard_density=0.0, beard_length=0.0,
                      hair_colour="black", hair_rgb=(0.014, 0.012, 0.012))  # fmt: skip
    bearded = replace(shaved, beard="beard", beard_density=1.0, beard_length=0.1)
    scene = plain(sample_scene(shaved, 0, "selfie"))
    smooth, rough = (renderer.photograph(one, scene, 64) for one in (shaved, bearded))
    x, y = smooth.landmarks[3:].mean(0).astype(int)
    chin = (slice(y + 10, y + 13), slice(x - 4, x + 4))
    assert rough.image[chin].mean() < 0.7 * smooth.image[chin].mean()


@pytest.mark.parametrize("light", LAMPS)
def test_under_every_lamp_the_face_is_neither_black_nor_white(renderer, light: str) -> None:
    person = sample_person(5)
    scene = replace(plain(sample_scene(person, 0, "selfie")), lamp=light)
    photo = renderer.photograph(person, scene, 64)
    left, top, right, bottom = (int(v) for v in photo.face_box)
    level = photo.image[top:bottom, left:right].mean()
    assert 60 < level < 210


def test_hair_is_as_light_as_its_word_says(renderer) -> None:
    person = grooming(3, hair_style="long01", hair_length=1.0)
    scene = plain(sample_scene(person, 0, "selfie"))
    levels = []
    for word in ("black", "brown", "grey", "white"):
        worn = replace(scene, hair_colour=word, hair_rgb=HAIR_COLOURS[word], hair_changed=True)
        photo = renderer.photograph(person, worn, 64)
        left, top, right, _ = (int(v) for v in photo.face_box)
        crown = photo.image[max(top - 9, 0) : max(top - 2, 1), left + 8 : right - 8]
        levels.append(float(crown.mean()))
    assert levels == sorted(levels)
    assert levels[3] > 2 * levels[0]


def plain(scene):
    """The same scene before a perfect camera, unhatted, without glasses, seen from the front."""
    return replace(scene, lens=Lens(), hat="none", glasses="none", grain=0.0, vignette=0.0,
                   head=(0.0, 0.0, 0.0), body_yaw=0.0, place="studio", lamp="place")  # fmt: skip


def test_clothes_lose_their_logo_and_keep_their_folds() -> None:
    picture = np.zeros((128, 128, 4), np.uint8)
    picture[...] = (40, 90, 170, 255)
    picture[:, ::16] = (30, 70, 130, 255)  # a fold
    picture[50:78, 50:78] = (250, 130, 20, 255)  # a logo
    centres = np.random.default_rng(0).random((200, 2))
    cloth = cloth_texture(picture, centres, "male_casualsuit02")
    inside, outside = cloth[54:74, 54:74, 0].astype(float), cloth[100:120, 54:74, 0].astype(float)
    assert abs(inside.mean() - outside.mean()) < 12
    assert (cloth[..., 3] == 255).all()


def test_a_shirt_under_a_suit_is_told_apart() -> None:
    picture = np.full((64, 64, 4), 255, np.uint8)
    picture[:, 16:, :3] = 40  # the jacket
    centres = np.random.default_rng(0).random((200, 2))
    cloth = cloth_texture(picture, centres, "male_elegantsuit01")
    assert (cloth[:, :16, 1] == 255).all() and (cloth[:, 16:, 1] == 0).all()


def test_the_noise_tile_has_no_seam_and_spreads_evenly() -> None:
    tile = noise_tile(128).astype(float)
    inner = np.abs(np.diff(tile[..., 0], axis=1)).mean()
    assert np.abs(tile[:, 0, 0] - tile[:, -1, 0]).mean() < 1.5 * inner
    shares = np.histogram(tile[..., 0], 4, (0, 256))[0] / tile[..., 0].size
    assert shares == pytest.approx(np.full(4, 0.25), abs=0.01)
    assert tile[..., 1:].mean() == pytest.approx(128, abs=3)


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
