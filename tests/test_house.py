"""The tests' tree mirrors the library's, file by file; what is tested elsewhere is named here, with the place."""

from pathlib import Path

import pytest
from places import ROOT

ELSEWHERE = {
    "models": {
        "arithmetic": "test_upscaler, graphs/test_engines",
        "base/errors": "every sentence and exit code, where it is caused",
        "base/progress": "pipeline/cli/test_process",
        "base/settings": "the settings of each network, training/test_recipe",
        "bench/contender": "bench/test_peers, bench/test_run",
        "bench/own": "bench/test_turns, bench/test_run",
        "data/batches": "data/test_images, training/test_loop",
        "data/measured": "test_evaluate",
        "graphs/checked": "test_export, graphs/test_engines",
        "graphs/program": "test_export",
        "losses/adversarial": "losses/test_terms, losses/test_rsd",
        "methods/reconstruction": "acceptance/test_train_tasks, acceptance/test_sharp_training",
        "methods/rsd": "acceptance/test_train_tasks",
        "methods/slimdiffsr_student": "acceptance/test_train_tasks",
        "methods/slimdiffsr_teacher": "acceptance/test_train_tasks",
        "metrics/judge": "test_evaluate",
        "networks/architectures": "test_weights_file, test_upscaler",
        "networks/precision": "acceptance/test_train_tasks: 16 bits",
        "networks/slimdiffsr/autoencoder": "networks/slimdiffsr/test_student, acceptance/test_ablations",
        "networks/slimdiffsr/config": "networks/slimdiffsr/test_student, acceptance/test_ablations",
        "networks/slimdiffsr/operators": "networks/slimdiffsr/test_student",
        "networks/slimdiffsr/unet": "networks/slimdiffsr/test_student",
        "registry": "test_upscaler",
        "sensors/demo_responses": "pipeline/demo/test_sensor",
        "sensors/sentinel2_offset": "sensors/test_sentinel2",
        "show": "test_upscaler, test_published, acceptance/test_ablations",
        "train": "acceptance/test_train_tasks, integration/test_train",
        "training/optimise": "training/test_loop",
        "training/resume": "training/test_loop",
        "training/run_config": "training/test_recipe",
        "training/task": "training/test_loop",
        "training/validation": "training/test_loop",
    },
    "pipeline": {
        "batch/area": "batch/test_cells",
        "batch/catalogue": "integration/test_batch",
        "batch/collection": "integration/test_batch, batch/test_run",
        "batch/leases/holding": "batch/leases/test_folder, batch/leases/test_bucket",
        "batch/records": "batch/test_job, batch/test_status",
        "cf": "mosaics/test_store, scenes/test_scene",
        "cli/batch": "integration/test_batch",
        "cli/learning": "integration/test_train, integration/test_evaluate",
        "cli/models": "integration/test_models_show",
        "cli/options": "cli/test_process",
        "cli/view": "view/test_serve",
        "cli/scenes": "cli/test_app, integration/test_main_job",
        "jobs/finish": "integration/test_upscale_job",
        "jobs/forecast": "integration/test_batch, jobs/test_product_upscale, integration/test_upscale_job",
        "jobs/publishing": "integration/test_killed_publishing",
        "jobs/room": "integration/test_bad_input_fetch, integration/test_bad_input_upscale",
        "jobs/upscale": "integration/test_upscale_job",
        "mosaics/overviews": "mosaics/test_store",
        "mosaics/pictures": "mosaics/test_page",
        "mosaics/stac/footprint": "mosaics/stac/test_item",
        "places/address": "scenes/test_remote, batch/leases/test_bucket",
        "places/objects": "places/test_upload, batch/leases/test_bucket",
        "places/place": "batch/test_run, batch/leases/test_bucket",
        "places/refusals": "places/test_upload, scenes/test_remote",
        "places/web": "scenes/test_remote",
        "scenes/writer": "scenes/test_scene",
        "sources/chunks": "jobs/test_fetch",
        "sources/packing": "sources/test_assets, sources/test_asset_file",
        "sources/plan": "jobs/test_fetch",
        "sources/products/files": "sources/products/safe/test_granules",
        "sources/products/product": "jobs/test_product",
        "sources/products/readers": "sources/products/test_eopf, sources/products/test_others",
        "sources/products/zarr_asset": "sources/products/test_eopf",
        "sources/products/zarr_store": "sources/products/test_eopf",
        "sources/remote": "sources/test_asset_file",
        "sources/retry": "sources/test_assets, sources/test_asset_file",
        "sources/stac/io": "sources/stac/test_search, sources/stac/test_catalog",
        "sources/stac/items": "sources/stac/test_catalog",
        "look": "mosaics/test_page, batch/formats/test_map_page",
        "release": "cli/test_process",
        "workers/closed": "workers/test_local",
        "workers/forks/preload": "workers/forks/test_forking",
    },
}
"""Modules without a file of tests of their own, and where they are tested. The demo is, as a whole."""

PROCESS = {"pipeline": {"cli/process"}, "models": set[str]()}
"""Tests of packages themselves."""


def names(folder: Path, prefix: str = "") -> set[str]:
    """Files below a folder, as `room/name`; packages' own are none."""
    files = (path for path in folder.rglob(f"{prefix}*.py") if not path.name.startswith("__"))
    return {str(path.relative_to(folder).with_name(path.stem.removeprefix(prefix))) for path in files}


@pytest.mark.parametrize("half", ["models", "pipeline"])
def test_every_module_has_its_tests_and_every_test_its_module(half: str) -> None:
    modules = {name for name in names(ROOT / half) if not name.startswith("demo/")}
    tested = {name for name in names(ROOT / "tests" / half, "test_") if not name.startswith("demo/")} - PROCESS[half]
    assert tested <= modules
    assert modules - tested == set(ELSEWHERE[half])


def test_no_file_is_too_long_and_no_room_too_full() -> None:
    lengths = {
        path: len(path.read_text().splitlines())
        for half in ("models", "pipeline")
        for path in (ROOT / half).rglob("*.py")
    }
    assert {path for path, length in lengths.items() if length > 300} == set()
    rooms = {path.parent for path in lengths if path.parent.name != "demo"}
    assert {room for room in rooms if len(list(room.glob("*.py"))) > 12} == set()
