"""Jobs as files have them: what is refused, in one sentence; and whose an output is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from archives import WriteJob
from distributed import system
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsup.models.base.errors import ArgumentError, ModelError, OutputError, RsupError
from rsup.pipeline.batch.job import FetchOptions, UpscaleOptions, load_job
from rsup.pipeline.batch.plan import plan
from rsup.pipeline.batch.records import claim
from rsup.pipeline.batch.run import run
from rsup.pipeline.batch.status import retry, status
from rsup.pipeline.jobs.upscale_plan import UpscaleRequest
from rsup.pipeline.sources.request import FetchRequest

UPSCALE = {"scale": 4, "model": "nearest", "device": "cpu"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"outptu": "x"}, "outptu: Extra inputs are not permitted: correct its name, or leave it out"),
        ({"fetch": {"max-cloud": 20}}, "fetch.max-cloud: Extra inputs are not permitted"),
        ({"fetch": {"crs": "EPSG:32633"}}, "fetch.crs: Extra inputs are not permitted"),
        ({"bbox": None}, "give the ground either as bbox"),
        ({"area": "a.geojson"}, "give the ground either as bbox"),
        ({"bbox": None, "area": "missing.geojson"}, "missing.geojson cannot be read"),
        ({"bbox": None, "area": "a\0"}, "cannot be read .there is a NUL in its name."),
        ({"bbox": "13,52,14,53"}, "bbox: Input should be a valid tuple: write a list"),
        ({"dates": 2024}, "dates: Input should be a valid string: write it in quotes"),
        ({"bbox": [13, 52, 12, 51]}, "is reversed"),
        ({"bbox": [13, 52, 13, 52]}, "has no ground in it"),
        ({"dates": "2024-07-31/2024-05-01"}, "is reversed"),
        ({"dates": "2024-05-01/.."}, "give both ends"),
        ({"dates": "soon"}, "is no date"),
        ({"interval": "0d"}, "give month, acquisition, or days, from 1d on"),
        ({"interval": "\uff11\uff10d"}, "give month, acquisition, or days, from 1d on"),  # digits of another width
        ({"cells": 8}, 'cells: give "mgrs", or the side of the squares, 64 to 32768 scene pixels'),
        ({"cells": "tiles"}, 'cells: give "mgrs", or the side'),
        ({"fetch": {"bands": ["pink"]}}, "--bands pink: choose from"),
        ({"fetch": {"max_cloud": 120}}, "--max-cloud 120 is no percentage"),
        ({"fetch": {"composite": "mean"}}, "--composite mean: choose first or median"),
        ({"upscale": {}}, "upscale.scale: Field required"),
        ({"upscale": UPSCALE | {"scale": 3}}, "--scale 3: choose 4"),
        ({"upscale": UPSCALE | {"outputs": ["cog", "page"]}}, "upscale.outputs: name item as well"),
        ({"upscale": UPSCALE | {"outputs": []}}, "upscale.outputs: name item as well"),
        ({"upscale": UPSCALE | {"outputs": ["item", "png"]}}, "--outputs item,png: name one or more of zarr, cog"),
        ({"upscale": UPSCALE | {"chunk": 8}}, "--chunk 8: choose 64 to 4000"),
        ({"upscale": UPSCALE | {"bands": ["nir"]}}, "--bands nir: .* has red, green, blue"),
        ({"upscale": UPSCALE | {"uncertainty": True}}, "nearest does not say how far it may be off"),
        ({"upscale": UPSCALE | {"scheduler": "tcp://127.0.0.1:1", "workers": 2}}, "leave out --workers and --device"),
    ],
)
def test_what_is_no_job(changes: dict[str, Any], words: str, write_job: WriteJob, tmp_path: Path) -> None:
    path = write_job(**changes)
    with pytest.raises(ArgumentError, match=words) as caught:
        load_job(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert [each.name for each in tmp_path.iterdir()] == ["job.toml"]


KEYS = ("bbox", "area", "dates", "interval", "cells", "keep_scenes", "fetch", "upscale")
OPTIONS = {
    "fetch": ("catalog", "collection", "max_cloud", "bands", "composite", "mask_clouds", "offset"),
    "upscale": (
        "scale",
        "bands",
        "device",
        "workers",
        "scheduler",
        "tls_ca",
        "consistency",
        "uncertainty",
        "chunk",
        "outputs",
    ),
}
scalar = st.one_of(
    st.text(max_size=20), st.integers(-10, 10**6), st.floats(-1e3, 1e3), st.booleans(), st.dates().map(str)
)
thing = st.one_of(scalar, st.lists(scalar, max_size=5))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.tuples(st.sampled_from(KEYS), thing).map(lambda pair: dict([pair])),
        *(
            st.tuples(st.sampled_from(names), thing).map(
                lambda pair, table=table: {table: (UPSCALE if table == "upscale" else {}) | dict([pair])}
            )
            for table, names in OPTIONS.items()
        ),
    )
)
def test_any_value_of_any_key_gives_a_job_or_a_sentence(write_job: WriteJob, changes: dict[str, Any]) -> None:
    with suppress(RsupError):
        assert load_job(write_job(**changes)).identity()


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("", "output: an empty name is no place to write to"),
        ("  ", "output: an empty name is no place to write to"),
        ("~/archive", "output: ~/archive would be a folder called ~"),
        (r"a\u0000b", "output: a.b has a NUL in its name"),
    ],
)
def test_what_is_no_output(output: str, words: str, write_job: WriteJob) -> None:
    path = write_job()
    path.write_text("\n".join([f'output = "{output}"', *path.read_text().splitlines()[1:]]))
    with pytest.raises(ArgumentError, match=words):
        load_job(path)


def test_what_is_no_file_of_a_job(tmp_path: Path, write_job: WriteJob) -> None:
    for content, words in (("[", "is not TOML"), ("\0" * 100_000, "is larger than any job"), (None, "cannot be read")):
        path = tmp_path / "odd.toml"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)
        with pytest.raises(ArgumentError, match=words):
            load_job(path)
    with pytest.raises(ModelError):
        load_job(write_job(upscale={"scale": 4, "model": "missing.safetensors"}))


def test_a_mark_before_a_job_is_no_part_of_it(write_job: WriteJob) -> None:
    path = write_job()
    plain = load_job(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_job(path) == plain


def test_a_job_takes_every_option_of_the_commands_with_its_default() -> None:
    """But for those that the job gives itself, or that belong to one command alone."""
    for options, request, others in (
        (FetchOptions, FetchRequest, {"bbox", "date", "output", "crs", "overwrite", "chunk", "items", "ground"}),
        (UpscaleOptions, UpscaleRequest, {"scene", "output", "overwrite", "cluster", "said"}),
    ):
        theirs = {each.name: each for each in fields(request) if each.init and each.name not in others}
        assert set(options.model_fields) == set(theirs)
        for name, each in theirs.items():
            mine = options.model_fields[name]
            assert mine.is_required() == (each.default is MISSING)
            assert mine.is_required() or mine.default == each.default


RECORDED = (
    '{"area": [13.0, 52.0, 13.1, 52.1], "cells": 64, "fetch": {"bands": ["red", "green", "blue"], "catalog": '
    '"earth-search", "collection": "sentinel-2-l2a", "composite": "first", "mask_clouds": false, "max_cloud": 20.0, '
    '"offset": "auto"}, "first_day": "2024-05-01", "interval": "month", "keep_scenes": false, "upscale": {"bands": '
    '["red", "green", "blue"], "chunk": 512, "consistency": "sensor", "model": "MODEL", "scale": 4, '
    '"uncertainty": false}}'
)
"""How an earlier version wrote the fingerprint of a job that leaves every default as it is."""


def test_archives_of_earlier_versions_are_still_the_job_s(write_job: WriteJob) -> None:
    job = load_job(write_job(bbox=[13.0, 52.0, 13.1, 52.1], fetch=None, upscale={"scale": 4, "model": "nearest"}))
    said = json.dumps(job.identity(), sort_keys=True)
    assert said == RECORDED.replace("MODEL", job.upscale_plan.model.sha256)
    identities = [
        load_job(write_job(upscale=UPSCALE | {"outputs": outputs})).identity()
        for outputs in (
            ["zarr", "cog", "item", "page"],
            ["page", "zarr", "item", "cog", "cog"],
            ["item", "cog"],
            ["cog", "item"],
        )
    ]
    assert identities[0] == identities[1] == load_job(write_job()).identity() != identities[2] == identities[3]


def test_chunks_that_no_memory_holds_are_refused_before_anything_is_asked(
    write_job: WriteJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_job(cells=8192, upscale=UPSCALE | {"scale": 8, "chunk": 4000})
    monkeypatch.setattr(system, "MEMORY_LIMIT", 2**31)
    with pytest.raises(ArgumentError, match="GB of memory with chunks of this size"):
        load_job(path)
    assert status(load_job(path, here=False))["waiting"]  # whoever looks on need not be able to do it


def test_runners_that_begin_at_once_have_one_output(write_job: WriteJob) -> None:
    job = load_job(write_job())
    identity, children = job.identity(), []
    for _ in range(6):
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                claim(job.output, identity)
                os._exit(0)
            os._exit(1)
        children.append(child)
    assert {os.waitpid(child, 0)[1] for child in children} == {0}
    assert [path.name for path in job.output.iterdir()] == ["job.json"]


@pytest.mark.parametrize("command", [plan, status, retry, lambda job: run(job, (1, 1))])
def test_another_job_s_output_is_left_alone(command: Callable[..., Any], write_job: WriteJob, tmp_path: Path) -> None:
    output = tmp_path / "archive"
    first = load_job(write_job())
    claim(output, first.identity())
    before = (output / "job.json").read_bytes()
    claim(output, load_job(write_job(dates="2024-05-01/2025-01-31", upscale=UPSCALE | {"workers": 1})).identity())
    for changes, words in (
        ({"cells": 128}, r"belongs to another job \(cells differ\)"),
        ({"dates": "2024-05-02/2024-06-30", "keep_scenes": True}, r"\(first_day, keep_scenes differ\)"),
        ({"upscale": UPSCALE | {"model": "bicubic"}}, r"was made with another model \(SHA-256 .*--renew"),
        ({"upscale": UPSCALE | {"model": "bicubic", "chunk": 64}}, r"\(upscale differ\)"),
    ):
        with pytest.raises(OutputError, match=words):
            command(load_job(write_job(**changes)))
    (output / "job.json").write_text("{")
    with pytest.raises(OutputError, match="job.json is damaged"):
        command(first)
    (output / "job.json").write_bytes(before)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="holds something that is no archive of a job"):
        command(load_job(write_job(output="other")))
    assert [each.name for each in other.iterdir()] == ["thesis.txt"]
    assert [each.name for each in output.iterdir()] == ["job.json"] and (output / "job.json").read_bytes() == before
