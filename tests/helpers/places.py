"""Where things lie: the project, its recipes, and real imagery that may lie beside it; no test needs that."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"
SHARED = ROOT.parent / "shared"
