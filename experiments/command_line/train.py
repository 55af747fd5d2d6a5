"""Train a recipe, or resume its run in ``runs/<name>/seed<seed>/``."""

from __future__ import annotations

import os
import sys

from experiments.recipes import recipes

USAGE = """\
usage: python -m experiments train RECIPE [--seed_everything N] [--name NAME] [options]

Train a recipe, or resume its run in runs/<name>/seed<seed>/.

  RECIPE                   one of the recipes below, or a YAML file of your own
  --seed_everything N      seed of weights and order, from 0 (default: 0)
  --name NAME              name of the run, if not the recipe's
  --trainer.max_epochs N   any option of trainer, model or data:
                             python -m experiments show RECIPE   explains those of a recipe
                             python -m experiments fit --help    lists all

recipes: {recipes}
"""


def announce() -> None:
    """Report the start before torch and Lightning are imported, which takes seconds."""
    first = all(os.environ.get(rank, "0") == "0" for rank in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    if first and "pytorch_lightning" not in sys.modules:
        print("Loading PyTorch ...", file=sys.stderr, flush=True)


def main() -> None:
    recipe, *options = sys.argv[1:] or ["--help"]
    if recipe.startswith("-"):
        print(USAGE.format(recipes=" ".join(recipes())))
        sys.exit(recipe not in ("-h", "--help"))
    announce()
    from experiments.command_line import cli  # imports torch, which the help does not need

    sys.argv = ["experiments", "fit", f"--config={recipe}", *options]
    cli.main()
