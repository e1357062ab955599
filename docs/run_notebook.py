"""Runs the notebook in a folder of its own and keeps what it shows: `python docs/run_notebook.py [IN] [OUT]`.

Neither the time of a run nor its number stays: what is kept changes only with what is shown.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent


def main(source: Path, target: Path) -> None:
    # `!rsup` is the one of this very Python.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    notebook = nbformat.read(source, as_version=4)
    with tempfile.TemporaryDirectory(prefix="rsup-notebook-") as folder:
        # By sockets in the file system: nobody else on the machine hears what the kernel is told.
        kernel = KernelManager(kernel_name="python3", transport="ipc", ip=f"{folder}/kernel")
        resources = {"metadata": {"path": folder}}
        try:
            NotebookClient(notebook, km=kernel, timeout=900, resources=resources, record_timing=False).execute()
        finally:
            kernel.shutdown_kernel(now=True)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = nbformat.NotebookNode()
        if cell.cell_type == "code":
            cell.execution_count = None
            for output in cell.outputs:
                output.pop("execution_count", None)
                if output.output_type == "execute_result":
                    output.output_type = "display_data"
                output.metadata = nbformat.NotebookNode() if "metadata" in output else output.get("metadata")
                if output.metadata is None:
                    del output["metadata"]
                if "data" in output and {"image/jpeg", "image/png"} & output.data.keys():
                    output.data.pop("text/plain", None)
    notebook.metadata = nbformat.from_dict({"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    nbformat.validate(notebook)
    nbformat.write(notebook, target)


if __name__ == "__main__":
    main(*(Path(name) for name in sys.argv[1:3] or [HERE / "field.ipynb"] * 2))
