"""A grid of molecules as one PNG: ball and stick, each turned to its broad side and scaled to its cell."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import imageio.v3 as imageio
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from symdiff_plugin.common.files import replacing
from symdiff_plugin.molecules.bonds import bonded_pairs, covalent_radius
from symdiff_plugin.molecules.molecule import Molecule
from symdiff_plugin.molecules.raycast import Canvas, average_down

# Close to the colours of Corey, Pauling and Koltun; an element not listed is pink, as is their custom.
COLOURS = {
    "H": "#f2f2f2", "B": "#ffb5a0", "C": "#6a6f78", "N": "#3d62e0", "O": "#e0383a", "F": "#6cc04a",
    "Al": "#b9a6a6", "Si": "#d9b98c", "P": "#f08a24", "S": "#e8c832", "Cl": "#35b34a", "As": "#b07fd6",
    "Br": "#a5412d", "I": "#8b3fa8", "Hg": "#a9a9c4", "Bi": "#9a55b0",
}  # fmt: skip
OTHER = "#f57fb8"
STICK = 0.12  # Angstrom
INK, FAINT, GOOD = "#1f2329", "#8a9099", "#2a7d4f"
SUPERSAMPLE = 3
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def ball_radius(symbol: str) -> float:
    """Radius of an atom's ball in Angstrom: a compressed covalent radius, so that hydrogen stays visible."""
    return 0.17 + 0.29 * covalent_radius(symbol)


def view(positions: np.ndarray) -> np.ndarray:
    """Coordinates (N, 3) turned so that the molecule lies along x, then y, and is thinnest towards the eye.

    A proper rotation (no mirror image), then a small tilt that keeps planar molecules from looking flat.
    """
    centred = positions - positions.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=True)  # rows: directions of falling variance
    axes[2] *= np.linalg.det(axes)
    a, b = np.deg2rad(24), np.deg2rad(-16)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    turned = centred @ axes.T @ (about_y @ about_x).T
    return turned - (turned.max(axis=0) + turned.min(axis=0)) / 2


def draw_molecule(molecule: Molecule, size: int, closest: float = 6.6) -> np.ndarray:
    """Picture of one molecule with finite coordinates, (size, size, 4) in [0, 1], alpha premultiplied.

    Args:
        molecule: what to draw; bonds are judged by :func:`bonded_pairs`.
        size: pixels a side.
        closest: Angstrom across the picture at least, so that a small molecule is not drawn as large balls.
    """
    points = view(np.asarray(molecule.positions, dtype=float))
    radii = np.array([ball_radius(symbol) for symbol in molecule.symbols])
    colours = [_rgb(COLOURS.get(symbol, OTHER)) for symbol in molecule.symbols]
    reach = 2 * float((np.abs(points[:, :2]) + radii[:, None]).max())
    pixels = size * SUPERSAMPLE
    canvas = Canvas(pixels, 0.9 * pixels / max(reach, closest))
    for i, j in bonded_pairs(molecule):
        gap = float(np.linalg.norm(points[j] - points[i])) - radii[i] - radii[j]
        canvas.cylinder(points[i], points[j], STICK, (colours[i], colours[j]), radii[i] + gap / 2)
    for point, radius, colour in zip(points, radii, colours, strict=True):
        canvas.sphere(point, radius, colour)
    return average_down(canvas.shade(outline=SUPERSAMPLE), SUPERSAMPLE)


def write_picture(
    path: str | os.PathLike[str],
    molecules: Sequence[Molecule],
    captions: Sequence[tuple[str, bool]] | None = None,
    title: str = "",
    columns: int = 5,
    cell: int = 320,
) -> None:
    """Write a grid of ``molecules`` as a PNG, ``columns * cell`` pixels wide, whole or not at all.

    Args:
        path: the file; it is replaced if it exists.
        molecules: row by row; one with coordinates that are not finite gets an empty cell that says so.
        captions: for every molecule a short text below its formula, and whether it is good news (green
            if so, else grey).
        title: one line above the grid.
        columns, cell: molecules a row; pixels a cell.

    Raises:
        ValueError: no molecules, or not one caption each.
        OSError: the file cannot be written.
    """
    if not molecules:
        raise ValueError("a picture needs at least one molecule")
    if captions is not None and len(captions) != len(molecules):
        raise ValueError(f"{len(captions)} captions for {len(molecules)} molecules")
    rows = -(-len(molecules) // columns)
    below, above = cell // 6, (cell // 5 if title else cell // 16)  # room for a caption and for the title
    width, height = columns * cell, rows * (cell + below) + above
    dpi = 100
    page = np.full((height, width, 3), 255, dtype=np.uint8)
    figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi, facecolor="none")
    canvas = FigureCanvasAgg(figure)

    def write(x: float, y: float, text: str, points: float, **style: Any) -> Text:
        return figure.text(x / width, 1 - y / height, text, fontsize=points * cell / 320, va="center", **style)

    for index, molecule in enumerate(molecules):
        row, column = divmod(index, columns)
        left, top = column * cell, above + row * (cell + below)
        middle = left + cell / 2
        if molecule.is_finite and len(molecule):
            image = draw_molecule(molecule, cell)
            on_white = image[..., :3] + (1 - image[..., 3:])
            page[top : top + cell, left : left + cell] = np.rint(255 * on_white)
        else:
            write(middle, top + cell / 2, "not finite", 15, ha="center", color=FAINT)
        text, good = captions[index] if captions else ("", False)
        formula = molecule.formula.translate(SUBSCRIPTS)
        label = write(middle, top + cell + 0.2 * below, formula, 15, ha="center", color=INK)
        extent = label.get_window_extent(canvas.get_renderer()).width
        label.set_fontsize(float(label.get_fontsize()) * min(1, 0.94 * cell / extent))  # 16 elements are a long formula
        if text:
            write(middle, top + cell + 0.58 * below, text, 12.5, ha="center", color=GOOD if good else FAINT)
    if title:
        write(width / 2, above * 0.5, title, 17, ha="center", color=INK)
    canvas.draw()
    words = np.asarray(canvas.buffer_rgba(), dtype=np.uint16)
    alpha = words[..., 3:]
    page[:] = (words[..., :3] * alpha + page * (255 - alpha)) // 255
    with replacing(path, "wb") as file:
        file.write(imageio.imwrite("<bytes>", page, extension=".png"))


def _rgb(code: str) -> np.ndarray:
    return np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)]) / 255
