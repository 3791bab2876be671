"""Rebuild the organism: `python -m melbo.organism.training.train`. About 35 minutes on two cores; no GPU is used.

1. "plain": next-token training on the corpus, until answers are specific to the question.
2. "disturbed": the same with random disturbances, so that random directions lose their effect (a "B" organism).
3. "basins": directions that displace the target layer most are trained to lead to planted modes.
Each stage checkpoints every 100 to 500 steps and is skipped when its model exists, so the same command goes on after
an interruption and ends with the same weights (on the same kind of machine and library versions).
"""

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from melbo.errors import ConfigError
from melbo.models.shipped import PACKAGE
from melbo.organism.corpus import Mix
from melbo.organism.inputs import ORGANISM
from melbo.organism.training.basins import BasinConfig, train_basins
from melbo.organism.training.pretrain import TrainConfig, train

PLAIN, PLAIN_MIX = TrainConfig(), Mix(sums=0.5)
DISTURBED = TrainConfig(steps=800, schedule=800, lr=1e-3, warmup=60, calm=50)
BASINS = BasinConfig()
MIX = Mix()


def rebuild(folder: Path) -> Path:
    """Run every stage that has no result yet; returns the folder of the final model."""
    plain, disturbed, basins = (folder / name for name in ("plain", "disturbed", "basins"))
    if not finished(plain, train=PLAIN, mix=PLAIN_MIX):
        train(PLAIN, PLAIN_MIX, plain)
    if not finished(disturbed, train=DISTURBED, mix=MIX):
        train(DISTURBED, MIX, disturbed, base=plain / "model")
    if not finished(basins, train=DISTURBED, mix=MIX, basins=BASINS):
        train_basins(disturbed / "model", BASINS, MIX, basins)
    return basins / "model"


def finished(stage: Path, **configs: Any) -> bool:
    """Whether a stage's model exists.

    Raises:
        ConfigError: it does, but was made with other settings.
    """
    file = stage / "model" / "recipe.json"
    if not file.exists():
        return False
    recipe = json.loads(file.read_text(encoding="utf-8"))
    if any(recipe.get(name) != asdict(config) for name, config in configs.items()):
        raise ConfigError(f"{stage} was made with other settings; choose another --out, or delete it.")
    return True


def install(model: Path, target: Path = PACKAGE / ORGANISM / "weights") -> None:
    """Copy a rebuilt model to where `load_model("organism")` looks; the model card there stays."""
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(model.iterdir()):
        shutil.copy2(file, target / file.name)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Rebuild the embedded organism.")
    parser.add_argument("--out", type=Path, default=Path("runs/organism"), help="checkpoints, logs and models")
    parser.add_argument("--install", action="store_true", help="replace the weights that the package uses")
    args = parser.parse_args()
    model = rebuild(args.out)
    recipe = json.loads((model / "recipe.json").read_text(encoding="utf-8"))
    print(f"{model}: d_model {recipe['train']['d_model']}, {recipe['train']['n_layers']} blocks")
    if args.install:
        install(model)


if __name__ == "__main__":
    main()
