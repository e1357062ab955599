"""rsup models show as a user runs it on a recipe: the paper's ablations, one setting each."""

import json

from places import RECIPES

RECIPE = RECIPES / "slimdiffsr/student-x4.toml"


def test_an_ablation_of_the_recipe(rsup):
    """The last row of table 5: Stable Diffusion's own autoencoder, reached through its 4-channel latent."""
    switches = ("--set", "student.autoencoder=kl", "--set", "student.fused=false")
    done = rsup("models", "show", RECIPE, *switches, "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["parameters_as_published"] == 138_893_178
    assert (shown["parameters"], shown["kind"], shown["scales"]) == (136_842_582, "recipe", [4])
    done = rsup("models", "show", "bicubic", *switches)
    assert (done.returncode, done.stdout) == (3, "")
    assert "bicubic is none: give a .toml file" in done.stderr and done.stderr.count("\n") == 1
