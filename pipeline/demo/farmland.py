"""Fields, hedges and woods: paints the open country of a window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .canvas import SHADOW_EAST, SHADOW_NORTH, VEGETATION, Canvas, inside
from .noise import SmoothNoise, mix, uniform
from .regions import WOOD, Regions
from .spectra import CROP, CROP_COVER, CROP_TRAMLINES, SOIL, SPECTRUM

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TRACK_GAUGE = 0.9  # half the distance between a tractor's wheels, metres
_BARE_BELOW = 0.4  # share of crop cover under which SCL calls a field bare


def paint_fields(
    canvas: Canvas,
    regions: Regions,
    noise: SmoothNoise,
    bent: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    """Cover the whole canvas with strips of crops: tramlines, headlands, drill streaks, patches, hedges.

    `bent` are the points' coordinates in a bent frame: the strips' edges curve as the regions' borders do.
    """
    u, v = regions.frame(np.arange(canvas.x.size), *bent)
    bits = regions.bits[regions.index]

    # A region is cut into bands along u, a band into strips: the strip is the field.
    length = (180 + 240 * uniform(regions.bits, 12))[regions.index]
    band = np.floor(v / length)
    along = v - band * length
    row_bits = mix(bits, band)
    width = 45 + 105 * uniform(row_bits, 1)
    place = u / width + uniform(row_bits, 2)
    strip = np.floor(place)
    across = (place - strip) * width
    field = mix(row_bits, strip)
    end = np.minimum(along, length - along)
    edge = np.minimum(np.minimum(across, width - across), end)

    crop = (uniform(field, 1) * len(CROP_COVER)).astype(np.intp)
    soil = (uniform(field, 2) < 0.4).astype(np.intp)
    spacing = 18 + 3 * np.floor(uniform(field, 3) * 4)
    # On the headland, the last 12 m, the sprayer turns and drives along the field's end.
    offset = np.where(end < 12, np.abs(end - 6), np.abs(across % spacing - spacing / 2))
    tramline = inside(np.float32(0.5) - np.abs(offset - np.float32(_TRACK_GAUGE)))

    vigour = noise(canvas.x, canvas.y, 75, 3)
    streaks = noise(u, v * np.float32(0.06), 4, 4)
    cover = CROP_COVER[crop] * (1 - CROP_TRAMLINES[crop] * tramline)
    cover = np.clip(cover * (1 + np.float32(0.07) * vigour + np.float32(0.035) * streaks), 0, 1)
    moisture = 1 + np.float32(0.07) * noise(canvas.x, canvas.y, 140, 5)
    shade = 0.88 + 0.24 * uniform(field, 4)
    canvas.reflectance[:] = (1 - cover) * SOIL[:, soil] * moisture + cover * CROP[:, crop] * shade
    canvas.scl[:] = np.where(cover > _BARE_BELOW, VEGETATION, canvas.scl)

    margin = np.flatnonzero((edge < 3) & (uniform(field, 5) < 0.6))
    canvas.paint(margin, SPECTRUM["grass"], inside(1.2 - edge[margin]))
    # A hedge belongs to the row, so that it runs on past the strips' ends.
    hedge = np.flatnonzero((end < 6) & (uniform(row_bits, 6) < 0.45))
    paint_trees(canvas, hedge, inside(2.6 - end[hedge]), noise, conifers=np.zeros(hedge.size, np.float32))


def paint_woods(canvas: Canvas, regions: Regions, noise: SmoothNoise) -> None:
    """Woods over whole regions, and copses among the fields with a shadow on their north-western side."""

    def copse(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
        """About metres inside a copse's edge."""
        return np.asarray((noise(x, y, 480, 7) - 1.45) * 130 + 5 * noise(x, y, 28, 6), np.float32)

    lone = copse(canvas.x, canvas.y)
    ragged = 7 * noise(canvas.x, canvas.y, 40, 11)
    here = np.maximum(lone, np.where(regions.use[regions.index] == WOOD, regions.border - 9 + ragged, -100))

    height = np.float32(18)
    beside = np.flatnonzero((here < 1) & (lone > -45))
    x, y = canvas.x[beside], canvas.y[beside]
    sunward = copse(x - height * np.float32(SHADOW_EAST), y - height * np.float32(SHADOW_NORTH))
    canvas.darken(beside, 1 - np.float32(0.55) * inside(sunward))

    wood = np.flatnonzero(here > -1)
    x, y = canvas.x[wood], canvas.y[wood]
    conifers = np.clip(noise(x, y, 170, 8) + 0.2, 0, 1)
    paint_trees(canvas, wood, inside(here[wood]), noise, conifers)

    # Forest tracks, 220 m apart.
    u, _ = regions.frame(wood, x + 18 * noise(x, y, 210, 10), y)
    track = np.abs((u + 110) % 220 - 110)
    ride = track < 4
    canvas.paint(wood[ride], SPECTRUM["gravel"] * np.float32(0.55), inside(1.8 - track[ride]))


def paint_trees(
    canvas: Canvas,
    where: NDArray[np.intp],
    cover: NDArray[np.float32],
    noise: SmoothNoise,
    conifers: NDArray[np.float32],
) -> None:
    """Tree crowns over the points `where`, lit by the sun; `conifers`: their share of the stand, [m]."""
    if where.size == 0:
        return
    x, y = canvas.x[where], canvas.y[where]
    crown = noise(x, y, 6.5, 9)
    sunward = noise(x - np.float32(2.2 * SHADOW_EAST * 2), y - np.float32(2.2 * SHADOW_NORTH * 2), 6.5, 9)
    light = np.clip(1 + np.float32(0.20) * (crown - sunward) + np.float32(0.16) * crown, 0.3, 1.8)
    stand = SPECTRUM["broadleaf"][:, None] * (1 - conifers) + SPECTRUM["conifer"][:, None] * conifers
    canvas.paint(where, stand * light, cover, VEGETATION)
