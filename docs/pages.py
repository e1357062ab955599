"""The site's pages that are not files of docs/: a hook of MkDocs that takes them from where they are written.

The README is cut at its headings, CONTRIBUTING, CHANGELOG and the models' cards are taken whole, the notebook is shown
as it was run, options come from the program's own help, and the Python reference from the docstrings, a page a room.
"""

from __future__ import annotations

import ast
import base64
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = {
    "A session with Earth Search": "session.md",
    "An archive": "archive.md",
    "Clusters": "recipes.md",
    "Training": "training.md",
    "Evaluation": "evaluation.md",
    "Speed": "speed.md",
    "Commands": "commands.md",
    "What can be relied on": "guarantees.md",
    "Limits": "limits.md",
    "Licence and attribution": "licence.md",
}
"""Pages of the README's sections; what comes before is the first page."""
HOME = "Three commands"
"""The section that stays on the first page."""
WHOLE = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "models/weights/compact-x4.md": "cards/compact-x4.md",
    "models/weights/compact-x8.md": "cards/compact-x8.md",
    "models/weights/sharp-x4.md": "cards/sharp-x4.md",
    "models/weights/sharp-x8.md": "cards/sharp-x8.md",
}
NOTEBOOK = "docs/field.ipynb"
PLACES = WHOLE | {"LICENSE": None, NOTEBOOK: "notebook.md"}
"""Where what a document leads to is on the site; None for what is not there."""
LONGEST = 3000
"""Characters of a printed output that are shown."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give the reference a page a room."""
    assert config.nav is not None
    reference = next(entry["Reference"] for entry in config.nav if "Reference" in entry)
    for half in ("pipeline", "models"):
        pages = [{name.removeprefix(f"{half}."): page} for name, page, _ in rooms() if name.split(".")[0] == half]
        reference.append({f"Python: {half}": pages})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the pictures of the cards."""
    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    for picture in sorted((ROOT / "models" / "weights").glob("*.svg")):
        files.append(File.generated(config, f"cards/{picture.name}", abs_src_path=str(picture)))
    return files


def pages() -> dict[str, str]:
    """Every page that is made, as Markdown, by its name."""
    made = readme()
    for name, page in WHOLE.items():
        made[page] = relinked((ROOT / name).read_text(encoding="utf-8"), name, page)
    made["notebook.md"] = notebook(json.loads((ROOT / NOTEBOOK).read_text(encoding="utf-8")))
    made["options.md"] = options()
    made |= {page: text for _, page, text in rooms()}
    return made


def readme() -> dict[str, str]:
    """The README's sections. Raises KeyError for one that has no page."""
    first, *rest = re.split(r"^## (.+)\n", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    made = {"index.md": first}
    for title, text in zip(rest[::2], rest[1::2], strict=True):
        if title == HOME:
            made["index.md"] += f"## {title}\n{text}"
        else:
            made[SECTIONS[title]] = f"# {title}\n{text}"
    # In a table GitHub needs a bar in code escaped, and the site shows the escape.
    plain = {page: re.sub(r"`[^`\n]*`", lambda code: code[0].replace("\\|", "|"), text) for page, text in made.items()}
    return {page: relinked(text, "README.md", page) for page, text in plain.items()}


def relinked(text: str, source: str, page: str) -> str:
    """A document's links, which are relative to it, as links of its page; to what the site does not have, no link."""

    def moved(found: re.Match[str]) -> str:
        label, target = found["label"], found["target"]
        if re.match(r"[a-z]+:|#", target):
            return found[0]
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if path in PLACES:
            to = PLACES[path]
        elif path.startswith("docs/"):
            to = path.removeprefix("docs/")
        else:
            to = f"cards/{posixpath.basename(path)}" if path.endswith(".svg") else None
        if to is None:
            return label.strip("![]")
        to = posixpath.relpath(to, posixpath.dirname(page) or ".")
        return f"{label}({to}{'#' * bool(anchor)}{anchor})"

    return re.sub(r"(?P<label>!?\[[^\]]*\])\((?P<target>[^)\s]+)\)", moved, text)


def notebook(document: dict[str, Any]) -> str:
    """A notebook that was run, as Markdown: text, code, and what it printed and drew."""
    return "\n\n".join(part for cell in document["cells"] for part in shown(cell)) + "\n"


def shown(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        picture = next((kind for kind in ("image/jpeg", "image/png") if kind in data), None)
        if picture is not None:
            encoded = base64.b64encode(base64.b64decode(data[picture])).decode()  # in one line
            yield f"![What the cell above draws](data:{picture};base64,{encoded})"
        elif text := "".join(output.get("text", data.get("text/plain", "")))[:LONGEST].rstrip():
            yield f"```text\n{text}\n```"


def options() -> str:
    """What `--help` says, of every command."""
    from rsup.pipeline.cli.app import app

    lines = ["# Options", "", "What `--help` says, of every command."]
    for words, command in commands(typer.main.get_command(app), "rsup"):
        lines += ["", f"## {words}", "", (command.help or "").strip(), "", "| option | what it does |", "|---|---|"]
        context = command.context_class(command)
        records = [each.get_help_record(context) for each in command.params if each.name != "help"]
        lines += [
            f"| `{' '.join(record[0].split())}` | {cell(record[1]).replace('<', '&lt;')} |"
            for record in records
            if record is not None
        ]
    return "\n".join(lines) + "\n"


def commands(group: Any, words: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{words} {name}")
        else:
            yield f"{words} {name}", command


def cell(text: str) -> str:
    """Text in a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def rooms() -> list[tuple[str, str, str]]:
    """Title, name and Markdown of the page of every package: its own words, and its modules in turn."""
    made = []
    for half in ("pipeline", "models"):
        for init in sorted((ROOT / half).rglob("__init__.py")):
            folder = init.parent.relative_to(ROOT)
            modules = sorted(path.stem for path in init.parent.glob("*.py") if not path.name.startswith("__"))
            name = ".".join(("rsup", *folder.parts))
            words = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
            parts = [f"# {'.'.join(folder.parts)}", words, *(f"::: {name}.{module}" for module in modules)]
            made.append((".".join(folder.parts), f"reference/{'-'.join(folder.parts)}.md", "\n\n".join(parts) + "\n"))
    return made
