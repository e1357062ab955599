"""The model's item: valid, read by stac-model, and without a trace of who made it."""

import json
from typing import Any

import jsonschema
import pystac
import pytest
from pystac.validation import validate_dict
from stac_model.schema import MLModelProperties
from stac_pydantic import Item

from rsup.models.upscaler import descriptor_of
from rsup.pipeline.mosaics.stac.model_item import mlm_name, model_item

STUDENT = descriptor_of("default", 8)
MODEL = {"name": "student-x8", "sha256": "0123456789abcdef" * 4, "header": STUDENT.header}
BICUBIC = {"name": "bicubic", "sha256": "ab" * 32, "header": None}


def make(model: dict[str, Any] = MODEL) -> dict[str, Any]:
    return model_item("town_x8_model", ("red", "nir"), 10, 8, model)


@pytest.mark.parametrize("model", [MODEL, BICUBIC])
def test_valid_by_core_and_by_mlm(model: dict[str, Any]) -> None:
    item = make(model)
    validate_dict(item | {"stac_extensions": []})
    Item.model_validate(item)
    said = MLModelProperties.model_validate(item["properties"])
    assert list(map(str, said.tasks)) == ["super-resolution"]
    assert item == make(model) == json.loads(json.dumps(item))


def test_the_network_s_own_interface_and_weights() -> None:
    item = pystac.Item.from_dict(make())
    mlm = item.properties
    assert mlm["mlm:name"] == "student-x8" and mlm["mlm:architecture"] == MODEL["header"]["architecture"]
    bands = ["red", "green", "blue", "nir"]  # the network's, whatever was asked for
    assert mlm["mlm:input"][0]["bands"] == mlm["mlm:output"][0]["bands"] == bands
    assert mlm["mlm:input"][0]["input"]["shape"] == [-1, 4, -1, -1]
    assert mlm["mlm:output"][0]["result"]["dim_order"] == ["batch", "bands", "height", "width"]
    assert mlm["mlm:hyperparameters"] == {
        "scale": 8, "tile": STUDENT.tile, "halo": STUDENT.halo, "overlap": STUDENT.overlap,
    }  # fmt: skip
    weights = item.assets["model"]
    assert weights.roles == ["mlm:model"]
    assert [band["name"] for band in weights.extra_fields["bands"]] == bands
    assert weights.extra_fields["file:checksum"] == "1220" + MODEL["sha256"]
    assert weights.href.startswith("ni:///sha-256;") and mlm["license"] == "Apache-2.0"


def test_an_interpolator_takes_what_is_asked_for() -> None:
    said = make(BICUBIC)["properties"]
    assert said["mlm:input"][0]["bands"] == ["red", "nir"] and said["mlm:pretrained"] is False


def test_a_licence_that_is_no_spdx_name_is_other() -> None:
    header = {**(STUDENT.header or {}), "licence": "CreativeML OpenRAIL++-M, see the card"}
    assert make(MODEL | {"header": header})["properties"]["license"] == "other"


@pytest.mark.parametrize("name", ["x", "42", "Ma file.safetensors", "/models/\u00b5-net.safetensors", "--", "a b"])
def test_any_model_name_becomes_one_that_mlm_allows(name: str) -> None:
    assert jsonschema.Draft7Validator(
        {"type": "string", "pattern": r"^[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]$"}
    ).is_valid(mlm_name(name))
