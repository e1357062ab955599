"""The before/after page: one HTML file that needs nothing but itself.

In: a scene, the mosaic made of it, the model and the consistency figures. Out: pictures of the same ground at 10 m and
super-resolved behind a slider, and a table of what made them. No time stamps, no requests; whatever comes from
catalogues or files is escaped. Equal input gives an equal page.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from rsup.models.base.errors import unwritable
from rsup.models.base.files import replacing
from rsup.pipeline.errors import OutputError
from rsup.pipeline.lattice import GSD
from rsup.pipeline.public import printable
from rsup.pipeline.scenes.scene import Scene

from .pictures import Pair, Stretch, data_uri, details, ground, overview, scale_of, shown_bands

FIGURES = {
    "block_mean_error_mean": ("Block mean against 10 m pixel, mean error", "{:.3f} DN"),
    "block_mean_error_p99": ("Block mean against 10 m pixel, 99th percentile", "{:.3f} DN"),
    "sam_deg": ("Spectral angle to the 10 m pixel, mean", "{:.4f}\u00b0"),
    "dark_pixels": ("Pixels that are 0 in a band of the scene, and the darkest value here", "{:,.0f}"),
    "lost_pixels": ("Pixels that came from an item, and are nodata in the scene", "{:,.0f}"),
}
"""How the figures of consistency.py are named and written for people."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --dim: #5c6670; --paper: #fbfbfa; --line: #d9dcde; --mark: #0b63b0 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7e9; --dim: #9aa4ad; --paper: #15181b; --line: #32383e; --mark: #6db3f2 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
h1 { margin: 0; font-size: 1.6rem; font-weight: 600; overflow-wrap: anywhere }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.1rem; font-weight: 600 }
p { margin: .25rem 0 1.5rem; color: var(--dim) }
figure { margin: 0 }
figcaption { margin-top: .4rem; color: var(--dim); font-size: .875rem }
.pair { position: relative; overflow: hidden; background: #000; --at: 50%; max-height: 85vh; margin: 0 auto }
.pair img { position: absolute; inset: 0; width: 100%; height: 100%; display: block; image-rendering: pixelated }
.pair .before { clip-path: inset(0 calc(100% - var(--at)) 0 0) }
.pair::after { content: ""; position: absolute; top: 0; bottom: 0; left: var(--at); width: 2px; margin-left: -1px;
  background: #fff; box-shadow: 0 0 4px #0008; pointer-events: none }
.pair:focus-within { outline: 3px solid var(--mark); outline-offset: 2px }
.pair span { position: absolute; top: .6rem; padding: .1rem .5rem; background: #000a; color: #fff; font-size: .8rem;
  pointer-events: none }
.pair span:first-of-type { left: .6rem } .pair span:last-of-type { right: .6rem }
.pair input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize;
  touch-action: pan-y }
.details { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(28rem, 100%), 1fr)) }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .9rem }
th, td { padding: .45rem .75rem .45rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: anywhere }
tbody th { width: 18rem; font-weight: 400; color: var(--dim) }
code { font-size: .85em }
footer { margin-top: 2.5rem; color: var(--dim); font-size: .875rem }
@media print { .pair input { display: none } }
"""

SCRIPT = """
for (const input of document.querySelectorAll(".pair input")) {
  const show = () => input.parentElement.style.setProperty("--at", input.value + "%");
  input.addEventListener("input", show);
  show();
}
"""

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header>
<h1>$title</h1>
<p>$summary</p>
</header>
<main>
$overview
$details
<h2>What made it</h2>
<table><tbody>
$facts
</tbody></table>
$items
</main>
<footer>$attribution</footer>
<script>$script</script>
</body>
</html>
""")

COMPARE = Template("""<figure>
<div class="pair" style="aspect-ratio: $width / $height; max-width: calc(85vh * $width / $height)">
<img class="after" src="$after" alt="$place, super-resolved, at $fine">
<img class="before" src="$before" alt="$place before, at $coarse">
<span>$coarse</span><span>$fine</span>
<input type="range" min="0" max="100" step="0.5" value="50" aria-label="$place: how much of the $coarse image to show">
</div>
<figcaption>$caption</figcaption>
</figure>""")


def write_page(
    out: Path,
    scene: Scene,
    store: Path,
    bands: Sequence[str],
    model: dict[str, Any],
    figures: dict[str, float],
) -> None:
    """Write the page of the mosaic `store`, made of `scene` with `model` (name, sha256), overviews included.

    `figures` is what `consistency` returned. `out` appears whole or not at all. Raises OutputError where the disk
    refuses.
    """
    scale = scale_of(scene, store)
    shown = shown_bands(bands)
    whole = overview(scene, store, shown)
    stretch = Stretch.of(whole.before)
    close = details(scene, store, shown, stretch)
    items = [item for item in _list(scene.attributes.get("items")) if isinstance(item, dict)]
    colours = "True colour" if shown == ("red", "green", "blue") else f"Bands {', '.join(shown)}"
    page = PAGE.substitute(
        title=escape(f"{scene.path.stem}: {GSD} m to {GSD / scale:g} m"),
        style=STYLE,
        script=SCRIPT,
        summary=escape(
            f"{colours}, {ground(scene.aoi)}, super-resolved \u00d7{scale} with {model['name']}. "
            "Drag the line, or use the arrow keys; both sides share one contrast stretch."
        ),
        overview=_compare(whole, stretch, "The whole mosaic"),
        details=_details(close, stretch),
        facts="\n".join(_row(name, value) for name, value in _facts(scene, bands, scale, model, figures)),
        items=_items(items),
        attribution=escape(_attribution(items)),
    )
    try:
        with replacing(out) as fresh:
            fresh.write_text(page, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{unwritable(out, error)}; the same command then goes on") from error


def _compare(pair: Pair, stretch: Stretch, place: str) -> str:
    west, south, east, north = pair.window.bounds
    coarse = GSD * pair.coarser  # the overview of a large scene is coarser, and its labels say so
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


def _details(pairs: list[Pair], stretch: Stretch) -> str:
    if not pairs:
        return ""
    figures = [_compare(pair, stretch, f"Detail {k}") for k, pair in enumerate(pairs, 1)]
    return "<h2>Details</h2>\n" + f'<div class="details">\n{chr(10).join(figures)}\n</div>'


def _facts(
    scene: Scene, bands: Sequence[str], scale: int, model: dict[str, Any], figures: dict[str, float]
) -> list[tuple[str, str]]:
    """What the table says, as text; a value in backquotes is set as code."""
    height, width = scene.aoi.height, scene.aoi.width
    crs = scene.crs if len(scene.crs) < 40 else f"{scene.crs[:40]}\u2026"
    facts = [
        ("Scene", scene.path.name),
        ("Bands", ", ".join(bands)),
        ("Coordinate reference system", crs),
        ("Pixels", f"{width} \u00d7 {height} at {GSD} m, {width * scale} \u00d7 {height * scale} at {GSD / scale:g} m"),
        ("Scale", f"\u00d7{scale}"),
        ("Model", str(model["name"])),
        ("Model's SHA-256", f"`{model['sha256']}`"),
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
    """What the Copernicus licence asks for, with the years of acquisition where they are known."""
    dates = (re.match(r"\d{4}", str(item.get("datetime") or "")) for item in items)
    years = sorted({found[0] for found in dates if found})
    return " ".join(["Contains modified Copernicus Sentinel data", *([", ".join(years)] if years else [])]) + "."


def escape(text: str) -> str:
    """What others wrote as text of the page: no markup, no line ends, no changes of direction."""
    return html.escape(printable(text))


def _list(value: Any) -> list[Any]:
    """Attributes are somebody else's: a list as it is, nothing as an empty one, anything else as one entry."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
