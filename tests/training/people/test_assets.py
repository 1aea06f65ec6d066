from pathlib import Path

import numpy as np
import pytest

from training.people.assets import (
    diffuse_texture,
    harmonic_basis,
    load_binding,
    load_mesh,
    split_environment,
)

MHCLO = """# a comment
obj_file hat.obj
x_scale 3 4 2.0
y_scale 5 6 1.0
z_scale 7 8 0.5
verts 0
material hat.mhmat
12
 1  2  3 0.25 0.25 0.50 0.1 -0.2 0.3
delete_verts
4 6 - 8 11
"""


def test_a_binding_reads_both_kinds_of_lines_and_the_deleted_ranges(tmp_path: Path) -> None:
    file = tmp_path / "hat.mhclo"
    file.write_text(MHCLO)
    binding = load_binding(file)
    assert binding.vertices.tolist() == [[12, 12, 12], [1, 2, 3]]
    assert binding.weights.sum(1) == pytest.approx([1, 1])
    assert binding.offsets[1] == pytest.approx([0.1, -0.2, 0.3])
    assert binding.scales == ((3, 4, 2.0), (5, 6, 1.0), (7, 8, 0.5))
    assert binding.deleted.tolist() == [4, 6, 7, 8, 11]
    assert (binding.mesh_file, binding.material_file) == ("hat.obj", "hat.mhmat")


def test_a_mesh_splits_corners_at_seams_and_quads_into_triangles(tmp_path: Path) -> None:
    file = tmp_path / "quad.obj"
    file.write_text(
        "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nvt .5 .5\n"
        "f 1/1 2/2 3/3 4/4\nf 1/5 2/2 3/3\n"
    )
    mesh = load_mesh(file)
    assert mesh.vertex_count == 4
    assert len(mesh.triangles) == 3
    assert sorted(mesh.corner_vertices.tolist()) == [0, 0, 1, 2, 3]


def test_a_material_without_a_texture_is_refused_with_advice(tmp_path: Path) -> None:
    file = tmp_path / "plain.mhmat"
    file.write_text("name plain\n")
    with pytest.raises(ValueError, match="names no diffuseTexture"):
        diffuse_texture(file)


def test_an_even_sky_lights_every_direction_alike_and_has_no_key_light() -> None:
    light = split_environment(np.full((16, 32, 3), 2.0, np.float32))
    normals = np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]], np.float32)
    irradiance = harmonic_basis(normals) @ light.harmonics
    assert irradiance == pytest.approx(np.full((3, 3), 2 * np.pi), rel=0.02)
    assert light.key_colour == pytest.approx([0, 0, 0], abs=1e-3)


def test_a_small_bright_lamp_becomes_the_key_light() -> None:
    radiance = np.full((32, 64, 3), 0.1, np.float32)
    radiance[15:17, 31:33] = 500.0  # at the horizon, in the middle column: along +z
    light = split_environment(radiance)
    assert light.key_direction == pytest.approx([0, 0, 1], abs=0.05)
    assert light.radiance.max() < 1.0
