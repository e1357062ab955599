"""What people and water built: roads, villages, rivers and lakes, painted over the open country."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .canvas import BARE, SHADOW_EAST, SHADOW_NORTH, VEGETATION, WATER, Canvas, inside
from .farmland import paint_trees
from .noise import SmoothNoise, mix, uniform
from .regions import LAKE, VILLAGE, Regions
from .spectra import SPECTRUM

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOT, _DEPTH, _STREET = 23.0, 31.0, 6.5  # metres: frontage and depth of a plot, width of a street
_BLOCK = 6  # plots between two cross streets
_RIVER_SPACING = 4700.0  # metres between two rivers


def paint_roads(canvas: Canvas, regions: Regions) -> None:
    """Roads, lanes and dirt tracks along the regions' borders; a border's hash says which."""
    rank = uniform(regions.frontier, 1)
    for low, high, half_width, material in (
        (0.00, 0.30, 4.2, "asphalt"),
        (0.30, 0.62, 2.4, "asphalt"),
        (0.62, 0.85, 1.7, "gravel"),
    ):
        way = np.flatnonzero((rank >= low) & (rank < high) & (regions.border < half_width + 6))
        canvas.paint(way, SPECTRUM["grass"], inside(half_width + 2.5 - regions.border[way]), VEGETATION)
        canvas.paint(way, SPECTRUM[material], inside(half_width - regions.border[way]), BARE)


def paint_rivers(canvas: Canvas, noise: SmoothNoise, seed: int) -> None:
    """Rivers from west to east with sand on the bars and trees on the banks."""
    x, y = canvas.x, canvas.y
    course, slope = np.zeros_like(x), np.zeros_like(x)
    for n, (amplitude, wavelength) in enumerate(((260, 3300), (120, 1450), (35, 520))):
        phase = float(2 * np.pi * uniform(mix(seed, n), 3)[0])
        turn = np.float32(2 * np.pi / wavelength)
        course += amplitude * np.sin(turn * x + np.float32(phase))
        slope += amplitude * turn * np.cos(turn * x + np.float32(phase))
    offset = (y - course + _RIVER_SPACING / 2 + 500) % _RIVER_SPACING - _RIVER_SPACING / 2
    distance = np.abs(offset) / np.hypot(1, slope)
    near = np.flatnonzero(distance < 80)
    x, y = x[near], y[near]
    bank = 19 + 4 * noise(x, y, 300, 12) - distance[near]
    grove = inside(np.minimum(bank + 24 + 9 * noise(x, y, 60, 13), 12 * noise(x, y, 45, 14) + 2))
    canvas.paint(near, SPECTRUM["grass"], inside(bank + 30), VEGETATION)
    paint_trees(canvas, near, grove, noise, np.zeros(near.size, np.float32))
    bar = inside(bank + 7 * np.clip(noise(x, y, 130, 15), 0, 2))
    canvas.paint(near, SPECTRUM["sand"], bar, BARE)
    ripple = 1 + np.float32(0.05) * noise(x, y, 12, 16)
    canvas.paint(near, SPECTRUM["river"][:, None] * ripple, inside(bank), WATER)


def paint_lakes(canvas: Canvas, regions: Regions, noise: SmoothNoise) -> None:
    """A lake in the middle of each region set aside for one: a reed belt, shallows, deep water."""
    candidates = np.flatnonzero((regions.use[regions.index] == LAKE) & (regions.border > 8))
    k = regions.index[candidates]
    x, y = canvas.x[candidates], canvas.y[candidates]
    angle = np.arctan2(y - regions.centre[k, 1], x - regions.centre[k, 0])
    radius = np.hypot(y - regions.centre[k, 1], x - regions.centre[k, 0])
    reach = 150 + 60 * uniform(regions.bits, 13)[k]
    turn = (2 * np.float32(np.pi) * uniform(regions.bits, 14))[k]
    shore = reach * (1 + 0.2 * np.sin(2 * angle + turn) + 0.06 * np.sin(5 * angle)) + 9 * noise(x, y, 70, 17)
    depth = np.minimum(shore - radius, regions.border[candidates] - 20)
    paint_trees(canvas, candidates, inside(np.minimum(depth + 14, 9 * noise(x, y, 35, 18))), noise, 0 * depth)
    shallows = np.exp(-np.clip(depth, 0, None) / 14)
    water = SPECTRUM["lake"][:, None] * (1 - shallows) + SPECTRUM["shallows"][:, None] * shallows
    canvas.paint(candidates, water.astype(np.float32), inside(depth), WATER)


def paint_villages(canvas: Canvas, regions: Regions, noise: SmoothNoise) -> None:
    """Streets, plots with gardens and a house each, and here and there a hall on its yard."""
    town = np.flatnonzero((regions.use[regions.index] == VILLAGE) & (regions.border > 7))
    u, v = regions.frame(town, canvas.x[town], canvas.y[town])
    pitch = 2 * _DEPTH + _STREET  # two rows of plots back to back, and a street
    run = _BLOCK * _LOT + _STREET
    row, column = np.floor(v / pitch), np.floor(u / run)
    block = mix(regions.bits[regions.index[town]], row, column, 5)
    # Whole blocks are built over, the outer ones by chance.
    reach = np.hypot((column + 0.5) * run, (row + 0.5) * pitch)
    built = reach < 150 + 110 * uniform(block, 6)
    town, u, v, row, column, block = (each[built] for each in (town, u, v, row, column, block))

    from_street, from_lane = v - row * pitch, u - column * run
    street = np.minimum(np.minimum(from_street, pitch - from_street), np.minimum(from_lane, run - from_lane))
    garden = SPECTRUM["grass"][:, None] * (1 + np.float32(0.12) * noise(canvas.x[town], canvas.y[town], 14, 20))
    canvas.paint(town, garden, np.ones(town.size, np.float32), VEGETATION)
    trees = inside(2 * (noise(canvas.x[town], canvas.y[town], 11, 21) - 1))
    paint_trees(canvas, town, trees, noise, np.full(town.size, 0.2, np.float32))

    hall = uniform(block, 1) < 0.14
    _hall(canvas, town[hall], block[hall], from_lane[hall] - run / 2, from_street[hall] - pitch / 2)
    houses = ~hall
    side = np.floor((from_street - _STREET / 2) / _DEPTH)  # 0 south of the back fence, 1 north of it
    plot = np.floor((from_lane - _STREET / 2) / _LOT)
    lot = mix(block, side, plot)
    lot_u = from_lane - _STREET / 2 - (plot + 0.5) * _LOT
    # The house stands towards its street, the garden behind it.
    lot_v = from_street - _STREET / 2 - (side + 0.5) * _DEPTH + np.where(side == 0, 6, -6)
    _house(canvas, regions, town[houses], lot[houses], lot_u[houses], lot_v[houses])
    canvas.paint(town, SPECTRUM["asphalt"], inside(_STREET / 2 - street), BARE)


def _house(
    canvas: Canvas,
    regions: Regions,
    where: NDArray[np.intp],
    lot: NDArray[np.uint32],
    u: NDArray[np.float32],
    v: NDArray[np.float32],
) -> None:
    """A gabled house on each plot (u, v: metres from its middle), its shadow, and a paved drive."""
    lived_in = uniform(lot, 1) < 0.88
    half_u, half_v = 4.0 + 2.5 * uniform(lot, 2), 4.5 + 3.0 * uniform(lot, 3)
    u, v = u + 4 * (uniform(lot, 4) - 0.5), v + 4 * (uniform(lot, 5) - 0.5)
    # The shadow's direction in the plot's own frame.
    angle = (uniform(regions.bits, 11) * np.float32(np.pi))[regions.index[where]]
    height = 5 + 3 * uniform(lot, 6)
    east, north = height * np.float32(SHADOW_EAST), height * np.float32(SHADOW_NORTH)
    shift_u = np.cos(angle) * east + np.sin(angle) * north
    shift_v = np.cos(angle) * north - np.sin(angle) * east
    shade = _box(u - shift_u / 2, v - shift_v / 2, half_u + np.abs(shift_u) / 3, half_v + np.abs(shift_v) / 3)
    canvas.darken(where, 1 - np.float32(0.6) * inside(shade) * lived_in)
    drive = np.minimum(1.6 - np.abs(u - half_u + 1), 9 - np.abs(v))
    canvas.paint(where, SPECTRUM["concrete"], inside(drive) * (uniform(lot, 7) < 0.5) * lived_in)

    palette = np.stack([SPECTRUM["red tiles"], SPECTRUM["slate"], SPECTRUM["red tiles"] * np.float32(0.7)], axis=1)
    roof = palette[:, (uniform(lot, 8) * 3).astype(np.intp)] * (0.8 + 0.4 * uniform(lot, 9))
    # Half of a gabled roof faces the sun: brighter by the cosine of its incidence, at 35 degrees of pitch.
    facing = np.where(uniform(lot, 10) < 0.5, np.sign(u * shift_u), np.sign(v * shift_v))
    canvas.paint(where, roof * (1 - np.float32(0.22) * facing), inside(_box(u, v, half_u, half_v)) * lived_in, BARE)


def _hall(
    canvas: Canvas,
    where: NDArray[np.intp],
    block: NDArray[np.uint32],
    u: NDArray[np.float32],
    v: NDArray[np.float32],
) -> None:
    """A flat-roofed hall in the middle of its paved block."""
    canvas.paint(where, SPECTRUM["concrete"] * np.float32(0.8), np.ones(where.size, np.float32), BARE)
    half_u, half_v = 28 + 30 * uniform(block, 2), 14 + 11 * uniform(block, 3)
    roof = SPECTRUM["bright metal"][:, None] * (0.55 + 0.55 * uniform(block, 4))
    canvas.paint(where, roof, inside(_box(u, v, half_u, half_v)), BARE)
    skylight = np.minimum(1 - np.abs((u + 6) % 12 - 6), half_v - 4 - np.abs(v))
    skylight = np.minimum(skylight, half_u - 3 - np.abs(u))
    canvas.paint(where, SPECTRUM["slate"], inside(skylight))


def _box(
    u: NDArray[np.float32], v: NDArray[np.float32], half_u: NDArray[np.float32], half_v: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Metres inside the edge of a box around the origin."""
    return np.minimum(half_u - np.abs(u), half_v - np.abs(v))
