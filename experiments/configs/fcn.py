"""The demo, and a template: three masks beside the base, on 5,000 MNIST digits in two minutes.

python -m experiments.train --config=experiments/configs/fcn.py --config.pdt.horizon=10
"""

from experiments.configs.base import PDTConfig, RunConfig


def get_config() -> RunConfig:
    """The settings that differ from their defaults; see `experiments.configs.base`."""
    return RunConfig(
        model="fcn",
        dataset="mnist5k",
        optimizer="sgd",
        learning_rate=0.01,
        batch_size=256,
        epochs=60,
        baseline=True,
        pdt=PDTConfig(criteria=("paper", "bounded", "reference")),
    )
