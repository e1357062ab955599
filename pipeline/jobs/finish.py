"""A mosaic whose chunks are all written: overviews, COGs, figures, page and STAC items, in the work folder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rsup.models.base.errors import SceneError
from rsup.models.base.progress import say, show_progress
from rsup.pipeline.ledger import Ledger
from rsup.pipeline.mosaics import overviews, page
from rsup.pipeline.mosaics.check import count_pixels, measure
from rsup.pipeline.mosaics.stac.item import stac_item, write_item
from rsup.pipeline.mosaics.stac.model_item import model_item
from rsup.pipeline.mosaics.statistics import Statistics, median_of
from rsup.pipeline.mosaics.store import has_valid_pixel, uncertainties_of
from rsup.pipeline.mosaics.tiff import cog

from .publishing import clear
from .upscale_plan import UpscalePlan


def finish(plan: UpscalePlan, ledger: Ledger) -> dict[str, float]:
    """From the full-resolution chunks to every output, in the work folder. Returns the consistency figures.

    Raises SceneError where no pixel is valid, OutputError where the disk refuses.
    """
    request, model, store, names = plan.request, plan.model, plan.store, plan.artefacts()
    with show_progress("overviews", "chunks") as progress:
        statistics = overviews.build_overviews(store, progress)
    if not has_valid_pixel(store):
        clear(store)
        ledger.forget()
        raise SceneError(f"{request.scene} has no valid pixel in {', '.join(request.bands)}: nothing to upscale")
    about = {"name": model.name, "sha256": model.sha256, "header": model.header}
    with ThreadPoolExecutor(1, "figures") as beside:  # most of the time neither keeps more than a core at work
        judged = beside.submit(_judge, plan, names, about, statistics)
        for kind, uncertain in (("cog", False), ("uncertainty", True)):
            if kind in names:
                with show_progress("uncertainty COG" if uncertain else "COG", "chunks") as progress:
                    cog.write_cog(store, plan.work / names[kind], statistics, progress, uncertainty=uncertain)
        figures = judged.result()
    if figures["lost_pixels"]:
        say(f"{request.scene}: {figures['lost_pixels']:,} pixels came from an item and are nodata now: it is damaged")
    if "item" in names:
        _describe(plan, names, about, figures, statistics)
    return figures


def _judge(
    plan: UpscalePlan, names: dict[str, str], about: dict[str, Any], statistics: dict[str, Statistics]
) -> dict[str, float]:
    """The consistency figures of the finished store, and the page, which shows them."""
    request, scene, store = plan.request, plan.scene, plan.store
    figures = measure(scene, store, plan.responses, request.scale)
    if (median := median_of(statistics[name] for name in uncertainties_of(store))) is not None:
        figures["uncertainty_median"] = median
    figures |= count_pixels(scene, request.bands)
    if "page" in names:
        page.write_page(plan.work / names["page"], scene, store, request.bands, about, request.consistency, figures)
    return figures


def _describe(
    plan: UpscalePlan,
    names: dict[str, str],
    about: dict[str, Any],
    figures: dict[str, float],
    statistics: dict[str, Statistics],
) -> None:
    """Write the STAC items of the mosaic and of the model that made it."""
    request, scene = plan.request, plan.scene
    asked, gsd = request.bands, plan.window.gsd
    write_item(model_item(Path(names["model"]).stem, asked, gsd, request.scale, about), plan.work / names["model"])
    document = stac_item(
        plan.name,
        plan.window,
        scene.crs,
        request.scale,
        request.bands,
        about,
        plan.sources,
        {kind: name for kind, name in names.items() if kind != "item"},
        interval=scene.interval,
        false_colour=plan.false_colour,
        held_by=request.consistency,
        figures=figures,
        statistics=statistics,
    )
    if left_out := scene.attributes.get("left_out"):
        document["properties"]["rsup:left_out"] = left_out
    if any(scene.numbers):
        document["properties"]["rsup:input"] = {
            band: meant.to_dict() for band, meant in zip(scene.bands, scene.numbers, strict=True) if meant
        }
    write_item(document, plan.work / names["item"])
