"""Which rsup this is."""

from importlib.metadata import version

VERSION = version("rsup")
"""Asked for once: it is read from a file."""


def library_version(name: str) -> str:
    """Of a library that numbers depend on; without what builds of one version differ in ("+cpu")."""
    return version(name).partition("+")[0]
