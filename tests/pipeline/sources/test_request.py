"""Options of fetch: what is understood, and one sentence for each that is not."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rsup.models.base.errors import ArgumentError
from rsup.pipeline.sources.request import FetchRequest


def request(**options: Any) -> FetchRequest:
    given: dict[str, Any] = {"bbox": (15.0, 46.0, 15.1, 46.1), "date": "2024-06", "output": Path("scene.zarr")}
    return FetchRequest(**given | options)


@pytest.mark.parametrize(
    ("date", "start", "end"),
    [
        ("2024", "2024-01-01", "2024-12-31"),
        ("2024-02", "2024-02-01", "2024-02-29"),
        ("2023-02-28", "2023-02-28", "2023-02-28"),
        ("2023-05/2023-06-15", "2023-05-01", "2023-06-15"),
        ("2023/..", "2023-01-01", None),
        ("../2023-04", None, "2023-04-30"),
    ],
)
def test_dates(date: str, start: str | None, end: str | None) -> None:
    made = request(date=date)
    assert made.start == (datetime.fromisoformat(start).replace(tzinfo=UTC) if start else None)
    assert (made.end and made.end.isoformat()) == (f"{end}T23:59:59.999999+00:00" if end else None)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"bbox": (15, 47, 16, 46)}, "reversed: south is greater than north"),
        ({"bbox": (16, 46, 15, 47)}, "looks reversed: west is greater than east"),
        ({"bbox": (150, 46, -20, 47)}, "looks reversed"),  # 190 degrees the other way round
        ({"bbox": (181, 46, 182, 47)}, "outside the world"),
        ({"bbox": (15, -91, 16, 47)}, "outside the world"),
        ({"bbox": (15, 46, 16)}, "four numbers"),
        ({"bbox": (15, 46, 16, float("nan"))}, "four numbers"),
        ({"bbox": (15, 83.5, 16, 85)}, "beyond UTM"),
        ({"bbox": (15, -81, 16, -79)}, "beyond UTM"),
        ({"date": "yesterday"}, "no date"),
        ({"date": "2024-13"}, "no date"),
        ({"date": "2024-06-31"}, "no date"),
        ({"date": "2024-06-02/2024-06-01"}, "reversed"),
        ({"date": "../.."}, "at least one end"),
        ({"date": "2024/2025/2026"}, "one date, or two"),
        ({"bands": ("red", "infrared")}, "infrared: choose from blue, green, red"),
        ({"bands": ("red", "red")}, "twice"),
        ({"bands": ()}, "choose from"),
        ({"composite": "mean"}, "first or median"),
        ({"offset": "1000"}, "auto, 0 or -1000"),
        ({"max_cloud": 120.0}, "no percentage"),
        ({"crs": "EPSG:3857"}, "UTM zone"),
        ({"crs": "EPSG:32661"}, "UTM zone"),
        ({"chunk": 0}, "64 to 8192"),
    ],
)
def test_each_mistake_is_named(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence) as failure:
        request(**options)
    assert failure.value.exit_code == 2


@pytest.mark.parametrize(
    ("bbox", "crs"),
    [
        ((15.0, 46.0, 15.1, 46.1), "EPSG:32633"),
        ((-70.7, -33.5, -70.6, -33.4), "EPSG:32719"),
        ((179.9, -17.0, -179.9, -16.9), "EPSG:32701"),
        ((5.2, 60.3, 5.4, 60.5), "EPSG:32632"),  # Bergen, in the widened zone 32
        ((15.0, 78.0, 15.5, 78.2), "EPSG:32633"),  # Svalbard
        ((20.5, 78.0, 20.9, 78.2), "EPSG:32633"),
        ((21.5, 78.0, 21.9, 78.2), "EPSG:32635"),
    ],
)
def test_the_zone_is_that_of_the_centre(bbox: tuple[float, ...], crs: str) -> None:
    assert request(bbox=bbox).utm == crs


def test_a_given_zone_is_taken() -> None:
    assert request(crs="32632").utm == "EPSG:32632"


def test_a_request_is_light() -> None:
    code = "import sys; from rsup.pipeline.sources.request import FetchRequest; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "xarray", "rasterio", "zarr", "odc"} & set(loaded)


def test_bands_may_be_named_as_any_archive_does() -> None:
    assert request(bands=("B04", "b03", "B02_10m", "B8")).bands == ("red", "green", "blue", "nir")
    with pytest.raises(ArgumentError, match="names a band twice"):
        request(bands=("red", "B04"))
