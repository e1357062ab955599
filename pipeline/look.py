"""Pages for people: a package's HTML file in, a template of it out that has the look all pages share."""

from __future__ import annotations

from importlib.resources import files
from string import Template


def look() -> str:
    """The style that all pages share."""
    return files(__package__).joinpath("look.css").read_text(encoding="utf-8").rstrip()


def template(package: str, name: str) -> Template:
    """The page `name` of a package, with `look.css` in the place of its `$look`."""
    page = files(package).joinpath(name).read_text(encoding="utf-8")
    return Template(page.replace("$look", look()))
