"""The instruments: one file each, and one line here. Nothing else knows a satellite.

Imports no library, for `rsup --help` asks here what it offers.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from .profile import Sensor
from .sentinel2 import SENTINEL2

SENSORS: dict[str, Sensor] = {each.name: each for each in (SENTINEL2,)}
"""By name."""

DEFAULT = SENTINEL2
"""Whose a scene or a collection is taken to be that nobody lists, and what is meant where nothing is named."""


def sensor_of(collection: str | None) -> Sensor:
    """The sensor of a STAC collection."""
    return next((sensor for sensor in SENSORS.values() if collection in sensor.collections), DEFAULT)


def sensor_of_items(items: Iterable[Any]) -> Sensor:
    """The sensor of a scene, by the items (attributes of it) that it was made of."""
    first = next(iter(items), None)
    return sensor_of(first.get("collection") if isinstance(first, dict) else None)


def first_light() -> datetime:
    """Of the eldest sensor: no image is older."""
    return min(sensor.since for sensor in SENSORS.values())


def common_name(name: str) -> str:
    """A band's common name, whoever named it: "red" for Red, B04, b04, B4 and B04_10m; other names as they are."""
    known = (sensor.common_name(name) for sensor in SENSORS.values())
    return next((found for found in known if found), name)
