"""The picture, judged by its pixels."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread
from molecules import MOLECULES
from scipy.ndimage import label
from scipy.spatial.distance import pdist

from symdiff_plugin.molecules.molecule import Molecule
from symdiff_plugin.molecules.picture import ball_radius, draw_molecule, view, write_picture
from symdiff_plugin.molecules.raycast import Canvas

REAL = [Molecule(tuple(m["symbols"]), np.array(m["positions"])) for m in MOLECULES]
RED, GREY = np.array([1.0, 0.0, 0.0]), np.array([0.5, 0.5, 0.5])


def test_the_nearer_of_two_spheres_is_seen():
    for z, seen in ((1.0, RED), (-1.0, GREY)):
        canvas = Canvas(61, 10.0)
        canvas.sphere(np.array([0.0, 0.0, 0.0]), 1.0, GREY)
        canvas.sphere(np.array([0.3, 0.0, z]), 1.0, RED)
        np.testing.assert_array_equal(canvas.colour[30, 30], seen)


def test_a_sphere_has_the_depth_and_area_of_a_sphere():
    canvas = Canvas(201, 50.0)
    canvas.sphere(np.array([0.0, 0.0, 3.0]), 1.5, RED)
    assert canvas.depth[100, 100] == pytest.approx(4.5, abs=1e-3)
    area = np.isfinite(canvas.depth).sum() / 50.0**2
    assert area == pytest.approx(np.pi * 1.5**2, rel=0.01)


@pytest.mark.parametrize("end", [[2.0, 0.0, 0.0], [1.2, -1.0, 1.5], [0.3, 0.4, -2.0]])
def test_every_point_drawn_of_a_cylinder_lies_on_it(end):
    start, end, radius = np.array([-0.5, 0.2, 0.1]), np.array(end), 0.25
    canvas = Canvas(200, 40.0)
    canvas.cylinder(start, end, radius, (RED, GREY), 0.5)
    rows, columns = np.nonzero(np.isfinite(canvas.depth))
    assert len(rows) > 100
    points = np.stack([(columns + 0.5 - 100) / 40, (rows + 0.5 - 100) / 40, canvas.depth[rows, columns]], axis=1)
    axis = (end - start) / np.linalg.norm(end - start)
    along = (points - start) @ axis
    across = points - start - along[:, None] * axis
    np.testing.assert_allclose(np.linalg.norm(across, axis=1), radius, atol=1e-5)
    np.testing.assert_allclose(canvas.normal[rows, columns], across / radius, atol=1e-5)
    assert along.min() >= -1e-5
    assert along.max() <= np.linalg.norm(end - start) + 1e-5
    np.testing.assert_array_equal(canvas.colour[rows, columns], np.where((along < 0.5)[:, None], RED, GREY))


def test_the_view_turns_but_does_not_deform_or_mirror():
    for molecule in REAL:
        seen = view(molecule.positions)
        np.testing.assert_allclose(pdist(seen), pdist(molecule.positions), atol=1e-9)
        centred = molecule.positions - molecule.positions.mean(0)
        turn = np.linalg.lstsq(centred, seen - seen.mean(0), rcond=None)[0]
        if np.linalg.matrix_rank(centred, tol=1e-6) == 3:
            assert np.linalg.det(turn) == pytest.approx(1.0)
        assert np.ptp(seen[:, 0]) > 0.8 * np.ptp(seen[:, 2])


def test_every_atom_of_a_molecule_is_in_the_frame():
    for molecule in REAL:
        image = draw_molecule(molecule, 120)
        assert image.shape == (120, 120, 4)
        edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert edge[:, 3].max() == 0  # nothing is cut off
        assert 0.02 < (image[..., 3] > 0.5).mean() < 0.7
        assert label(image[..., 3] > 0.3)[1] == 1  # bonds hold the balls together


def test_bonds_are_drawn_where_atoms_are_bonded_only():
    near = Molecule(("O", "O"), np.array([[-0.7, 0, 0], [0.7, 0, 0]]))
    apart = Molecule(("O", "O"), np.array([[-1.5, 0, 0], [1.5, 0, 0]]))
    assert label(draw_molecule(near, 90)[..., 3] > 0.5)[1] == 1
    assert label(draw_molecule(apart, 90)[..., 3] > 0.5)[1] == 2


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "new" / "samples.png"
    nowhere = Molecule(("C", "H"), np.full((2, 3), np.nan))
    lone = Molecule(("F",), np.zeros((1, 3)))
    molecules = [*REAL[:4], nowhere, lone]
    write_picture(path, molecules, [("stable", i % 2 == 0) for i in range(6)], "title", columns=3, cell=100)
    return imread(path)


def test_the_picture_is_a_grid_of_molecules_on_white(picture):
    height, width, _ = picture.shape
    assert width == 300
    assert height > 200
    ink = (picture[..., :3].min(axis=2) < 0.9).astype(float)
    above, step = 20, 100 + 16
    for index in range(6):
        row, column = divmod(index, 3)
        cell = ink[above + row * step : above + row * step + 100, column * 100 : column * 100 + 100]
        if index == 4:
            assert 0 < cell.mean() < 0.05  # the words "not finite", no molecule
        else:
            assert cell.mean() > 0.005
        caption = ink[above + row * step + 100 : above + (row + 1) * step, column * 100 : column * 100 + 100]
        assert caption.mean() > 0.01
    assert ink[:above].mean() > 0.005  # the title
    np.testing.assert_array_equal(picture[0, 0, :3], 1.0)


def test_oxygen_is_red_and_nitrogen_blue():
    for symbol, channel in (("O", 0), ("N", 2)):
        image = draw_molecule(Molecule((symbol,), np.zeros((1, 3))), 80)
        assert image[40, 40, :3].argmax() == channel


def test_elements_beyond_qm9_and_odd_ones_can_be_drawn():
    for symbol in ("Hg", "Bi", "Al", "Xe"):
        assert ball_radius(symbol) > ball_radius("H")
        assert draw_molecule(Molecule((symbol,), np.zeros((1, 3))), 40)[20, 20, 3] == 1


def test_bad_input_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="at least one molecule"):
        write_picture(tmp_path / "p.png", [])
    with pytest.raises(ValueError, match="1 captions for 2"):
        write_picture(tmp_path / "p.png", REAL[:2], [("stable", True)])
    assert not list(tmp_path.iterdir())
