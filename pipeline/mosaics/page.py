"""The before/after page: one HTML file that needs nothing but itself.

In: a scene, the mosaic made of it, the model and the consistency figures. Out: pictures of the same ground at 10 m and
super-resolved behind a slider, a map of the mosaic's uncertainty where it has one, and a table of what made them. No
time stamps, no requests; whatever comes from catalogues or files is escaped. Equal input gives an equal page.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from rsup.models.base.errors import OutputError
from rsup.models.base.files import write_whole, writing
from rsup.models.base.intervals import MEANING
from rsup.models.base.radiometry import SCALE_FACTOR
from rsup.models.sensors import sensor_of_items
from rsup.pipeline.look import template
from rsup.pipeline.public import printable
from rsup.pipeline.scenes.scene import Scene

from .pictures import (
    DARKEST,
    BeforeAfter,
    Stretch,
    data_uri,
    details,
    ground,
    overview,
    scale_of,
    shaded,
    shown_bands,
    uncertainty_map,
)
from .store import uncertainties_of, uncertainty_of

FIGURES = {
    "sensor_rms": ("Mosaic as the sensor sees it against the scene, root mean square", "{:.2f} of the sensor's noise"),
    "sensor_bias_p99": ("The same, means of 32 \u00d7 32 pixels, 99th percentile", "{:.2f} DN"),
    "sam_deg": ("The same, spectral angle, mean", "{:.4f}\u00b0"),
    "block_mean_error_mean": ("Block mean against 10 m pixel, mean error", "{:.3f} DN"),
    "block_mean_error_p99": ("Block mean against 10 m pixel, 99th percentile", "{:.3f} DN"),
    "uncertainty_median": ("How far the mosaic may be off (68 % of its errors), median", "{:.0f} DN"),
    "dark_pixels": ("Pixels that are 0 in a band of the scene, and the darkest value here", "{:,.0f}"),
    "lost_pixels": ("Pixels that came from an item, and are nodata in the scene", "{:,.0f}"),
}
"""How the figures of check.py are named and written for people."""

HELD_BY = {
    "sensor": "the sensor's response: seen through it, the mosaic is the scene within the sensor's noise",
    "mean": "block means: the mean of the fine pixels is the scene's pixel",
}

PAGE = template(__package__, "page.html")

COMPARE = Template("""<figure>
<div class="pair" style="aspect-ratio: $width / $height; max-width: calc(85vh * $width / $height)">
<img class="after" src="$after" alt="$place, super-resolved, at $fine">
<img class="before" src="$before" alt="$place before, at $coarse">
<span>$coarse</span><span>$fine</span>
<input type="range" min="0" max="100" step="0.5" value="50" aria-label="$place: how much of the $coarse image to show">
</div>
<figcaption>$caption</figcaption>
</figure>""")

UNCERTAINTY = Template("""
<h2>Uncertainty</h2>
<p>$summary</p>
<figure>
<img src="$picture" alt="Map of the mosaic's uncertainty, from $low (dark) to $high (white)"
 style="display: block; width: 100%; max-width: calc(85vh * $width / $height); margin: 0 auto; \
image-rendering: pixelated">
<figcaption>$low <span aria-hidden="true" style="display: inline-block; width: 8rem; height: .7rem; \
background: linear-gradient(to right, rgb($darkest $darkest $darkest), #fff); border: 1px solid"></span> $high \
in reflectance, mean of $bands; nodata is black</figcaption>
</figure>""")


def write_page(
    out: Path,
    scene: Scene,
    store: Path,
    bands: Sequence[str],
    model: dict[str, Any],
    held_by: str,
    figures: dict[str, float],
) -> None:
    """Write the page of the mosaic `store`, made of `scene` with `model` (name, sha256), overviews included.

    `figures` is what `measure` returned; `held_by`: a key of HELD_BY. `out` appears whole or not at all. Raises
    OutputError where the disk refuses.
    """
    scale = scale_of(scene, store)
    gsd, shown = scene.aoi.gsd, shown_bands(bands)
    whole = overview(scene, store, shown)
    stretch = Stretch.of(whole.before)
    close = details(scene, store, shown, stretch, whole)
    items = [item for item in _list(scene.attributes.get("items")) if isinstance(item, dict)]
    colours = "True colour" if shown == ("red", "green", "blue") else f"Bands {', '.join(shown)}"
    page = PAGE.substitute(
        title=escape(f"{scene.path.stem}: {gsd} m to {gsd / scale:g} m"),
        summary=escape(
            f"{colours}, {ground(scene.aoi)}, super-resolved \u00d7{scale} with {model['name']}. "
            "Drag the line, or use the arrow keys; both sides share one contrast stretch."
        ),
        overview=_compare(whole, stretch, "The whole mosaic"),
        details=_details(close, stretch),
        uncertainty=_uncertainty(store, shown, figures),
        facts="\n".join(_row(name, value) for name, value in _facts(scene, bands, scale, model, held_by, figures)),
        items=_items(items),
        attribution=escape(_attribution(items)),
    )
    with writing(out, OutputError, goes_on=True):
        write_whole(out, page.encode())


def _compare(pair: BeforeAfter, stretch: Stretch, place: str) -> str:
    west, south, east, north = pair.window.bounds
    coarse = pair.window.gsd * pair.coarser  # the overview of a large scene is coarser, and its labels say so
    return COMPARE.substitute(
        width=pair.before.shape[2],
        height=pair.before.shape[1],
        before=data_uri(stretch(pair.before)),
        after=data_uri(stretch(pair.after)),
        coarse=f"{coarse} m",
        fine=f"{coarse * pair.before.shape[2] / pair.after.shape[2]:g} m",
        place=place,
        caption=f"{place}: {ground(pair.window)}, x {west:.0f} to {east:.0f} m, y {south:.0f} to {north:.0f} m",
    )


def _details(pairs: list[BeforeAfter], stretch: Stretch) -> str:
    if not pairs:
        return ""
    figures = [_compare(pair, stretch, f"Detail {k}") for k, pair in enumerate(pairs, 1)]
    return "<h2>Details</h2>\n" + f'<div class="details">\n{chr(10).join(figures)}\n</div>'


def _uncertainty(store: Path, shown: Sequence[str], figures: dict[str, float]) -> str:
    """The map of the bands that are shown, and its key; nothing of a mosaic without one."""
    if not uncertainties_of(store):
        return ""
    widths = uncertainty_map(store, list(map(uncertainty_of, shown)))
    if not np.isfinite(widths).any():
        return ""  # what is valid is in bands that are not shown
    low, high = np.nanpercentile(widths, (1, 99)).tolist()
    summary = f"How far the mosaic may be off: {MEANING}"
    if (median := figures.get("uncertainty_median")) is not None:
        summary += f" Its median is {median * SCALE_FACTOR:.2g} in reflectance."
    height, width = widths.shape
    return UNCERTAINTY.substitute(
        summary=summary,
        picture=data_uri(shaded(widths, low, high)),
        low=f"{low * SCALE_FACTOR:.2g}",
        high=f"{high * SCALE_FACTOR:.2g}",
        width=width,
        height=height,
        darkest=DARKEST,
        bands=escape(", ".join(shown)),
    )


def _facts(
    scene: Scene, bands: Sequence[str], scale: int, model: dict[str, Any], held_by: str, figures: dict[str, float]
) -> list[tuple[str, str]]:
    """What the table says, as text; a value in backquotes is set as code."""
    height, width, gsd = scene.aoi.height, scene.aoi.width, scene.aoi.gsd
    crs = scene.crs if len(scene.crs) < 40 else f"{scene.crs[:40]}\u2026"
    facts = [
        ("Scene", scene.path.name),
        ("Bands", ", ".join(bands)),
        ("Coordinate reference system", crs),
        ("Pixels", f"{width} \u00d7 {height} at {gsd} m, {width * scale} \u00d7 {height * scale} at {gsd / scale:g} m"),
        ("Scale", f"\u00d7{scale}"),
        ("Model", str(model["name"])),
        ("Model's SHA-256", f"`{model['sha256']}`"),
        ("Held to the scene by", HELD_BY[held_by]),
    ]
    for key, value in figures.items():
        name, form = FIGURES.get(key, (key, "{:.4g}"))
        facts.append((name, form.format(value)))
    return facts


def _row(name: str, value: str) -> str:
    text = escape(value)
    code = re.fullmatch("`(.*)`", text)
    return f'<tr><th scope="row">{escape(name)}</th><td>{f"<code>{code[1]}</code>" if code else text}</td></tr>'


def _items(items: list[dict[str, Any]]) -> str:
    """The source items, in the scene's order; a column nobody has anything for stays away."""
    columns = {
        "Item": [str(item.get("id", "")) for item in items],
        "Acquired": [str(item.get("datetime") or "")[:19].replace("T", " ") for item in items],
        "Collection": [str(item.get("collection") or "") for item in items],
        "Baseline": [str(item.get("baseline") or "") for item in items],
        "Offset": ["" if item.get("offset") is None else str(item["offset"]) for item in items],
        "Why that offset": ["; ".join(map(str, _list(item.get("evidence")))) for item in items],
    }
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    if not columns:
        return ""
    head = "".join(f'<th scope="col">{name}</th>' for name in columns)
    rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in zip(*columns.values(), strict=True))
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<h2>Source items</h2>\n<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n'
        "</tbody></table></div>"
    )


def _attribution(items: list[dict[str, Any]]) -> str:
    """What the licence of the sensor's images asks for, with the years of acquisition where they are known."""
    dates = (re.match(r"\d{4}", str(item.get("datetime") or "")) for item in items)
    years = sorted({found[0] for found in dates if found})
    return " ".join([sensor_of_items(items).attribution, *([", ".join(years)] if years else [])]) + "."


def escape(text: str) -> str:
    """What others wrote as text of the page: no markup, no line ends, no changes of direction."""
    return html.escape(printable(text))


def _list(value: Any) -> list[Any]:
    """Attributes are somebody else's: a list as it is, nothing as an empty one, anything else as one entry."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
