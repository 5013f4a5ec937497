"""A ball-and-stick renderer in NumPy: spheres and cylinders seen along -z, orthographic.

The eye looks down the z axis, so a pixel (x, y) sees the surface point of largest z:

    sphere    |p - c| = r                  z = c_z + sqrt(r^2 - (x - c_x)^2 - (y - c_y)^2)
    cylinder  |p - a - d (p - a).d| = r    z: the larger root of a quadratic, kept where 0 <= (p - a).d <= L

Every pixel keeps the nearest surface's depth, normal and colour (a z-buffer); shading follows for all of them
at once, and lines are drawn where the depth jumps. The picture is made several times too large, then averaged.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

LIGHT = np.array([-0.42, 0.52, 0.74])
LIGHT = (LIGHT / np.linalg.norm(LIGHT)).astype(np.float32)
HALFWAY = LIGHT + np.array([0.0, 0.0, 1.0], dtype=np.float32)  # between the light and the eye
HALFWAY = HALFWAY / np.linalg.norm(HALFWAY)
OUTLINE = np.array([0.12, 0.13, 0.16])
Window = tuple[slice, slice]  # rows and columns of the canvas


@dataclass
class Canvas:
    """A square z-buffer, ``size`` pixels a side, ``scale`` pixels a unit of length, the origin in the middle."""

    size: int
    scale: float
    depth: np.ndarray = field(init=False)
    normal: np.ndarray = field(init=False)
    colour: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.depth = np.full((self.size, self.size), -np.inf, dtype=np.float32)
        self.normal = np.zeros((self.size, self.size, 3), dtype=np.float32)
        self.colour = np.ones((self.size, self.size, 3), dtype=np.float32)

    def sphere(self, centre: np.ndarray, radius: float, colour: np.ndarray) -> None:
        """Draw a sphere: ``centre`` (3,), ``colour`` (3,) in [0, 1]."""
        window, x, y = self._window(centre[:2] - radius, centre[:2] + radius)
        height = radius**2 - (x - centre[0]) ** 2 - (y - centre[1]) ** 2
        z = np.sqrt(np.maximum(height, 0.0))
        normal = np.stack([x - centre[0] + 0 * y, y - centre[1] + 0 * x, z], axis=-1) / radius
        self._put(window, height > 0, centre[2] + z, normal, colour)

    def cylinder(
        self,
        start: np.ndarray,
        end: np.ndarray,
        radius: float,
        colours: tuple[np.ndarray, np.ndarray],
        split: float,
    ) -> None:
        """Draw an open cylinder from ``start`` to ``end``, in the first colour up to the length ``split``."""
        length = float(np.linalg.norm(end - start))
        axis = (end - start) / max(length, 1e-9)
        slope = 1.0 - axis[2] ** 2
        if slope < 1e-6:
            return  # seen from its end: the spheres hide it
        low, high = np.minimum(start, end)[:2] - radius, np.maximum(start, end)[:2] + radius
        window, x, y = self._window(low, high)
        x, y = x - start[0], y - start[1]
        along = x * axis[0] + y * axis[1]
        # slope z^2 - 2 along axis_z z + (x^2 + y^2 - along^2 - radius^2) = 0, z measured from start
        discriminant = (along * axis[2]) ** 2 - slope * (x**2 + y**2 - along**2 - radius**2)
        z = (along * axis[2] + np.sqrt(np.maximum(discriminant, 0.0))) / slope
        position = along + z * axis[2]
        point = np.stack([x + 0 * y, y + 0 * x, z], axis=-1)
        normal = (point - position[..., None] * axis) / radius
        inside = (discriminant > 0) & (position >= 0) & (position <= length)
        colour = np.where((position < split)[..., None], colours[0], colours[1])
        self._put(window, inside, start[2] + z, normal, colour)

    def shade(self, fog: float = 0.3, outline: int = 1, jump: float = 0.35) -> np.ndarray:
        """The picture, (size, size, 4) in [0, 1] with premultiplied alpha, first row on top.

        Args:
            fog: how far the deepest surface fades to white.
            outline: width of the lines in pixels.
            jump: smallest step of depth, in units of length, that gets a line.
        """
        image = np.zeros((self.size, self.size, 4), dtype=np.float32)
        seen = np.isfinite(self.depth)
        if not seen.any():
            return image
        window = _around(seen, margin=outline)
        hit = seen[window]
        normal, colour, depth = (part[window][hit] for part in (self.normal, self.colour, self.depth))
        diffuse = np.clip(normal @ LIGHT, 0.0, 1.0)
        specular = np.clip(normal @ HALFWAY, 0.0, 1.0) ** 50
        facing = np.clip(normal[:, 2] / 0.6, 0.0, 1.0)  # darker towards the rim
        colour = colour * ((0.5 + 0.5 * diffuse) * (0.72 + 0.28 * facing))[:, None] + 0.45 * specular[:, None]
        near, far = depth.max(), depth.min()
        veil = np.zeros(hit.shape, dtype=np.float32)
        veil[hit] = fog * (near - depth) / max(near - far, 4.0)
        colour = colour + veil[hit][:, None] * (1.0 - colour)

        edge = np.zeros_like(hit)
        depth = np.where(hit, self.depth[window], far - 10.0)
        for lines, marks in ((depth, edge), (depth.T, edge.T)):
            for shift in range(1, outline + 1):
                step = lines[shift:] - lines[:-shift]
                marks[:-shift] |= step > jump  # the farther side gets the line
                marks[shift:] |= step < -jump
        part = image[window]
        part[hit, :3] = np.clip(colour, 0.0, 1.0)
        part[edge, :3] = OUTLINE + 0.45 * veil[edge][:, None] * (1.0 - OUTLINE)
        part[..., 3] = hit | edge
        return image[::-1]  # y grows upwards, rows downwards

    def _window(self, low: np.ndarray, high: np.ndarray) -> tuple[Window, np.ndarray, np.ndarray]:
        """The pixels between two corners and the coordinates of their middles, x (1, w) and y (h, 1)."""
        half = self.size / 2
        first = np.clip(np.floor(low * self.scale + half), 0, self.size).astype(int)
        last = np.clip(np.ceil(high * self.scale + half) + 1, 0, self.size).astype(int)
        x = (np.arange(first[0], last[0]) + 0.5 - half) / self.scale
        y = (np.arange(first[1], last[1]) + 0.5 - half) / self.scale
        return (slice(first[1], last[1]), slice(first[0], last[0])), x[None, :], y[:, None]

    def _put(self, window: Window, inside: np.ndarray, z: np.ndarray, normal: np.ndarray, colour: np.ndarray) -> None:
        nearer = inside & (z > self.depth[window])
        self.depth[window] = np.where(nearer, z, self.depth[window])
        self.normal[window] = np.where(nearer[..., None], normal, self.normal[window])
        self.colour[window] = np.where(nearer[..., None], colour, self.colour[window])


def _around(seen: np.ndarray, margin: int) -> Window:
    """The window of the pixels that are True, and ``margin`` more on every side."""
    rows, columns = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
    first, last = (slice(max(found[0] - margin, 0), found[-1] + margin + 1) for found in (rows, columns))
    return first, last


def average_down(image: np.ndarray, factor: int) -> np.ndarray:
    """Average blocks of ``factor`` x ``factor`` pixels: (factor h, factor w, c) becomes (h, w, c)."""
    rows = np.add.reduce([image[i::factor] for i in range(factor)])
    return np.add.reduce([rows[:, i::factor] for i in range(factor)]) / factor**2
