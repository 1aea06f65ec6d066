import numpy as np
import pytest

from training.people.basis import (
    ANCHORS,
    Basis,
    load_basis,
    phenotype_products,
    position_map,
    save_basis,
)

VARIATIONS = np.array(
    ["african", "asian", "caucasian", *(name for names in ANCHORS.values() for name in names)]
)


def mask_of(*names: str) -> np.ndarray:
    return np.isin(VARIATIONS, names).astype(np.float32)


@pytest.fixture
def basis() -> Basis:
    """Three vertices: womanhood lifts the first, a change or an action moves the others."""
    template = np.zeros((4, 3), np.float32)
    female = np.zeros((1, 4, 3), np.float32)
    female[0, 0, 1] = 1
    change = np.zeros((2, 4, 3), np.float32)
    change[0, 1, 0], change[1, 1, 0] = 1, -2
    action = np.zeros((1, 4, 3), np.float32)
    action[0, 2, 2] = 1
    return Basis(
        vertex_ids=np.array([0, 7, 9], np.int32),
        template=template,
        phenotype_variations=VARIATIONS,
        phenotype_mask=mask_of("female")[None],
        phenotype_projection=np.ones((1, 1), np.float32),
        phenotype_shapes=female,
        change_names=np.array(["nose"]),
        change_shapes=change,
        action_names=np.array(["smile"]),
        action_shapes=action,
        weights=np.zeros((3, 4), np.float32),
        corner_vertices=np.array([0, 1, 2], np.int32),
        corner_uvs=np.zeros((3, 2), np.float32),
        triangles=np.array([[0, 1, 2]], np.int32),
        position_map=np.zeros((4, 4, 3), np.float32),
    )


def test_a_phenotype_halfway_between_two_anchors_uses_half_of_each(basis: Basis) -> None:
    assert basis.shape({"gender": 0.5}, {})[0, 1] == pytest.approx(0.5)
    assert basis.shape({"gender": 1.0}, {})[0, 1] == pytest.approx(1.0)


def test_age_two_thirds_is_young_and_one_is_old() -> None:
    masks = np.stack([mask_of("young"), mask_of("old")])
    assert phenotype_products({"age": 2 / 3}, VARIATIONS, masks) == pytest.approx([1, 0], abs=1e-6)
    assert phenotype_products({"age": 1.0}, VARIATIONS, masks) == pytest.approx([0, 1], abs=1e-6)


def test_ancestries_are_shares_of_their_sum() -> None:
    masks = np.stack([mask_of("african"), mask_of("asian")])
    shares = phenotype_products({"african": 3, "asian": 1, "caucasian": 0}, VARIATIONS, masks)
    assert shares == pytest.approx([0.75, 0.25])


def test_a_negative_change_uses_the_decreasing_half(basis: Basis) -> None:
    assert basis.shape({}, {"nose": 0.5})[1, 0] == pytest.approx(0.5)
    assert basis.shape({}, {"nose": -0.5})[1, 0] == pytest.approx(-1.0)


def test_actions_add_up_and_none_moves_nothing(basis: Basis) -> None:
    assert basis.act({"smile": 0.4})[2, 2] == pytest.approx(0.4)
    assert not basis.act({}).any()


def test_a_saved_basis_comes_back_in_single_precision(basis: Basis, tmp_path) -> None:
    save_basis(basis, tmp_path / "basis.npz")
    again = load_basis(tmp_path / "basis.npz")
    assert again.change_shapes.dtype == np.float32
    assert np.allclose(again.change_shapes, basis.change_shapes)
    assert again.lookup()[9] == 2 and again.lookup()[1] == -1


def test_the_position_map_holds_positions_inside_a_triangle_and_zero_outside() -> None:
    corners = np.array([[1, 0, 0], [1, 2, 0], [1, 0, 2]], np.float32)
    uvs = np.array([[0, 0], [0.5, 0], [0, 0.5]], np.float32)
    drawn = position_map(corners, uvs, np.array([[0, 1, 2]], np.int32), size=32)
    assert drawn[30, 2, 0] == pytest.approx(1.0)
    assert not drawn[2, 30].any()
