"""The documentation as a site, and the notebook: built and run, and held to what is committed."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from chromium import Page
from places import ROOT

NOTEBOOK = ROOT / "docs" / "field.ipynb"


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    """docs/pages.py, which MkDocs finds by its path."""
    spec = importlib.util.spec_from_file_location("pages", ROOT / "docs" / "pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_section_of_the_readme_has_a_page_and_no_line_is_lost(pages: ModuleType) -> None:
    made = pages.readme()
    assert set(made) == {"index.md", *pages.SECTIONS.values()}
    plain = re.sub(r"\]\([^)]*\)|[\\#]", "", (ROOT / "README.md").read_text())
    written = re.sub(r"\]\([^)]*\)|[\\#]", "", "\n".join(made.values()))
    assert {line for line in plain.splitlines() if len(line) > 40} - set(written.splitlines()) == set()


@pytest.mark.parametrize(
    ("source", "page", "text", "expected"),
    [
        ("README.md", "index.md", "[a](docs/zarr.md#x)", "[a](zarr.md#x)"),
        ("README.md", "limits.md", "[card](models/weights/compact-x4.md)", "[card](cards/compact-x4.md)"),
        ("README.md", "index.md", "![p](docs/naip.jpg) [u](https://a.example/b)", "![p](naip.jpg) [u](https://a.example/b)"),
        ("models/weights/compact-x4.md", "cards/compact-x4.md", "![c](compact-x4.svg)", "![c](compact-x4.svg)"),
        ("README.md", "licence.md", "the [licence](LICENSE), [code](pipeline/cf.py)", "the licence, code"),
    ],
)  # fmt: skip
def test_links_lead_where_they_led(pages: ModuleType, source: str, page: str, text: str, expected: str) -> None:
    assert pages.relinked(text, source, page) == expected


def test_options_are_those_of_the_program(pages: ModuleType) -> None:
    text = pages.options()
    assert "## rsup batch run" in text and "| `--part I/N` |" in text and "`--scale" in text
    assert all(
        len(re.findall(r"(?<!\\)\|", re.sub("`.*?`", "", line))) == 3 for line in text.splitlines() if "|" in line
    )


class Loaded(HTMLParser):
    """What a page loads by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        if tag in ("script", "img", "iframe", "source") or (tag == "link" and said.get("rel") != "canonical"):
            self.addresses += [value for key in ("src", "href") if (value := said.get(key))]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_asks_nobody(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    site = {path.relative_to(tmp_path / "site").as_posix(): path for path in (tmp_path / "site").rglob("*.html")}
    assert {
        "index.html",
        "notebook.html",
        "options.html",
        "reference/pipeline-scenes.html",
        "cards/compact-x8.html",
    } <= set(site)
    assert len(site) > 50
    for path in site.values():
        assert not [address for address in Loaded(path.read_text()).addresses if re.match("(https?:)?//", address)]
    assert "which pixels, chunks and model tiles exist" in site["reference/pipeline.html"].read_text()
    with Page(tmp_path / "chromium") as page:
        page.open(site["index.html"].as_uri())
        page.wait("document.querySelectorAll('nav.md-nav a').length > 20")
        page.open(site["notebook.html"].as_uri())
        page.wait(
            "[...document.querySelectorAll('article img')].filter((image) => image.naturalWidth > 400).length >= 4"
        )
        assert not [asked for asked in page.asked if not asked.startswith(("file:", "data:"))]


def printed(notebook: dict[str, Any]) -> list[str]:
    """What each cell printed, apart from the seconds of a run."""
    cells = [
        "".join("".join(output.get("text", "")) for output in cell["outputs"])
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]
    return [re.sub(r"seconds: [\d.]+", "", text) for text in cells]


def test_the_notebook_is_committed_as_it_was_run() -> None:
    text = NOTEBOOK.read_text()
    notebook = json.loads(text)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    pictures = [output for cell in code for output in cell["outputs"] if "image/jpeg" in output.get("data", {})]
    assert len(pictures) == 4 and NOTEBOOK.stat().st_size < 600_000
    assert not re.search("/tmp|/home|/root|Traceback|stderr", text.replace("2>> log.txt", ""))
    assert all(cell["outputs"] for cell in code)


@pytest.mark.slow
def test_the_notebook_gives_what_it_shows(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "docs" / "run_notebook.py", NOTEBOOK, tmp_path / "again.ipynb"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=290)
    assert run.returncode == 0, run.stderr[-2000:]
    kept, again = (json.loads(path.read_text()) for path in (NOTEBOOK, tmp_path / "again.ipynb"))
    number = r"-?\d+(?:\.\d+)?"
    for before, now in zip(printed(kept), printed(again), strict=True):
        assert re.sub(number, "#", before) == re.sub(number, "#", now)
        # Processors differ in the last digits, and a width in metres by where a line is crossed.
        assert [float(each) for each in re.findall(number, now)] == pytest.approx(
            [float(each) for each in re.findall(number, before)], rel=0.1, abs=0.01
        )
