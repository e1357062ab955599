"""A page of side-by-side crops: one HTML file that needs nothing but itself.

In: rows of pictures of the same ground. Out: the page. No time stamps, no requests, whatever comes from files is
escaped; equal input gives an equal page.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from rsup.models.base.errors import DataError
from rsup.models.base.files import write_whole, writing
from rsup.models.data.measured import middle

from . import image as metrics
from .judge import Judge

STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --dim: #5c6670; --paper: #fbfbfa }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7e9; --dim: #9aa4ad; --paper: #15181b } }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 90rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
h1 { margin: 0; font-size: 1.6rem; font-weight: 600; overflow-wrap: anywhere }
h2 { margin: 2rem 0 .5rem; font-size: 1rem; font-weight: 600; overflow-wrap: anywhere }
p, figcaption { margin: .25rem 0; color: var(--dim); font-size: .9rem }
.row { display: grid; gap: .75rem; grid-auto-flow: column; grid-auto-columns: minmax(12rem, 1fr); overflow-x: auto }
figure { margin: 0 }
img { display: block; width: 100%; image-rendering: pixelated }
"""

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>$style</style>
</head>
<body>
<h1>$title</h1>
<p>$summary</p>
$rows
</body>
</html>
""")

BASELINE = "bicubic"

CROPS, CROP = 24, 192
"""Rows of the page, and the side of their crops in output pixels."""


@dataclass(frozen=True)
class Row:
    """One piece of ground: pictures [y, x, 3] of 8 bits by caption, in the order in which they are shown."""

    title: str
    pictures: dict[str, NDArray[np.uint8]]


def write_comparison(out: Path, title: str, summary: str, rows: Sequence[Row]) -> None:
    """Write the page; `out` appears whole or not at all. Raises DataError where the disk refuses."""
    page = PAGE.substitute(
        title=escape(title), style=STYLE, summary=escape(summary), rows="\n".join(_figures(row) for row in rows)
    )
    with writing(out, DataError):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, page.encode(errors="backslashreplace"))  # names of files may be no UTF-8


def _figures(row: Row) -> str:
    figures = "\n".join(
        f'<figure><img src="{_data_uri(picture)}" alt="{escape(row.title)}, {escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, picture in row.pictures.items()
    )
    return f'<h2>{escape(row.title)}</h2>\n<div class="row">\n{figures}\n</div>'


def _data_uri(picture: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def crops_of(title: str, scale: int, judge: Judge, low: Tensor, made: Mapping[str, Tensor], high: Tensor) -> Row:
    """The middle of one image, small pixels repeated to the size of the others."""
    names = [BASELINE, *(name for name in made if name != BASELINE)]
    nearest = F.interpolate(low, scale_factor=scale, mode="nearest")
    views = {"low resolution": nearest, **{name: made[name] for name in names}, "truth": high}
    pictures = {caption: _picture(judge.shown(middle(image[0], CROP))) for caption, image in views.items()}
    return Row(title, pictures)


def _picture(image: Tensor) -> NDArray[np.uint8]:
    return (metrics.eight_bits(image) * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()


def summary_of(result: Mapping[str, Any]) -> str:
    """The figures that `evaluate` returned as one line for the page; without those that are None."""
    shown = ("psnr_y", "ssim_y", "lpips", "niqe", "spectrum_rmse", "sam_deg")
    figures = ", ".join(f"{name} {result[name]:.4g}" for name in shown if result[name] is not None)
    return f"Means over {result['images']} images: {figures}. Pixels of the low resolution are shown as squares."
