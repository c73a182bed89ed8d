"""The studies with the settings of Wang et al. (2026), for accelerators.

From the configurations that the authors released, with the mask of their code. Where they leave a
grid open the values are ours, and so are Shampoo's, whose updates here are as long as those of SGD.

  python -m experiments.train --config=experiments/configs/paper.py:table1/vit_huge
"""

from experiments.configs.base import RunConfig, Studies, find, run, sweep

# In their code `T_i = 1` is every epoch, and the first prediction ends the epoch after `T_0`.
_PDT = {"pdt_criteria": ("reference",), "pdt_start": 6, "pdt_interval": 0}
_ARMS = {"baseline": True, "seeds": (0, 100, 200, 300, 400), **_PDT}
_COSINE = {"schedule": "cosine", "minimum_learning_rate": 0.001}
_CIFAR = {"dataset": "cifar10", "resolution": 128, "batch_size": 256, "epochs": 60, **_ARMS}
_ALEXNET = {"model": "alexnet", "learning_rate": 0.05, **_CIFAR}
_SHORT = {**_ALEXNET, "epochs": 30}
_IMAGENET = {"dataset": "imagenet2012", "schedule": "cosine", "warmup_epochs": 15, **_ARMS}
_VIT = {"optimizer": "adamw", "minimum_learning_rate": 1e-6, "epochs": 200, **_IMAGENET}
_RESNET = {"model": "resnet50", "optimizer": "momentum", "batch_size": 1800, **_IMAGENET}
_SIMSIAM = {"model": "simsiam", "dataset": "cifar10", "optimizer": "momentum", "epochs": 200}
_LSTM = {"model": "lstm", "dataset": "ag_news_subset", "batch_size": 128, "epochs": 30, **_ARMS}
_OPTIMIZERS = {
    "sgd": {"learning_rate": 0.1, "minimum_learning_rate": 1e-3},
    "momentum": {"learning_rate": 0.001, "minimum_learning_rate": 1e-4, "weight_decay": 1e-4},
    "adam": {"learning_rate": 0.0005, "minimum_learning_rate": 1e-5},
    "adamw": {"learning_rate": 5e-5, "minimum_learning_rate": 1e-6, "weight_decay": 1e-4},
    "rmsprop": {"learning_rate": 1e-4, "minimum_learning_rate": 1e-6},
    "lamb": {"learning_rate": 1e-3, "minimum_learning_rate": 1e-6},
    "shampoo": {"learning_rate": 0.1, "minimum_learning_rate": 1e-3},
}
_RATES = (0.01, 0.05, 0.1)
_SWEEPS = {
    "horizon": (1, 3, 10, 20),
    "interval": (2, 4, 9),
    "start": (11, 16, 21),
    "history": (3, 4, 8, 10),
}

STUDIES: Studies = {
    "table1": {
        "fully_convolutional": run(
            {**_CIFAR, **_COSINE, "model": "fully_convolutional"},
            {"learning_rate": 0.01, "epochs": 100, "pdt_horizon": 3},
        ),
        "alexnet": run(_ALEXNET, _COSINE),
        "resnet50": run(
            {**_RESNET, "learning_rate": 0.1, "minimum_learning_rate": 1e-4},
            {"weight_decay": 1e-4, "epochs": 300, "restart_epoch": 200, "pdt_adaptive": True},
        ),
        "vit_base": run(
            {**_VIT, "model": "vit_base", "learning_rate": 0.0015, "weight_decay": 0.05},
            {"batch_size": 1800, "pdt_adaptive": True},
        ),
        "vit_huge": run(
            {**_VIT, "model": "vit_huge", "learning_rate": 0.0005, "weight_decay": 0.1},
            {"batch_size": 384, "restart_epoch": 180, "pdt_scope": "leaf", "pdt_adaptive": True},
        ),
        "lstm": run(_LSTM, _COSINE, learning_rate=0.1, minimum_learning_rate=0.01),
    },
    "table2": {
        name: run(_ALEXNET, more, optimizer=name, schedule="cosine")
        for name, more in _OPTIMIZERS.items()
    },
    "table3": {
        "simsiam": run(
            {**_SIMSIAM, **_COSINE, **_ARMS, "learning_rate": 0.03},
            {"weight_decay": 1e-4, "batch_size": 256, "pdt_reset_momentum": True},
        )
    },
    "table4": {"alexnet": run(_ALEXNET, _COSINE, batch_order="one_class", batch_size=128)},
    "table5": {
        f"rate{rate}_batch{size}": run(_ALEXNET, learning_rate=rate, batch_size=size)
        for rate in _RATES
        for size in (128, 256, 512)
    },
    "table6": {f"rate{rate}": run(_ALEXNET, _COSINE, learning_rate=rate) for rate in _RATES},
    "figure2": {
        model: run(
            {**_CIFAR, "model": model, "learning_rate": 0.01, "epochs": 30},
            {"pdt_interval": 2, "pdt_criteria": ("reference", "accept_all")},
        )
        for model in ("fc2", "fc4", "fc6")
    },
    "failures": {
        "switching": run(
            _SHORT, {"pdt_start": 11, "pdt_horizon": 1, "pdt_history": 10, "pdt_switching": True}
        ),
        "random_acceleration": run(
            _SHORT, pdt_criteria=("random_subset",), pdt_predictor="last_increment"
        ),
        "random_mask": run(
            _SHORT, learning_rate=0.01, pdt_horizon=3, pdt_criteria=("reference", "random")
        ),
    },
    "masks": {
        "alexnet": run(
            _ALEXNET, _COSINE, pdt_criteria=("reference", "reference_magnitude", "reference_sign")
        )
    },
    "figure14": {name: run(_SHORT, sweep(name, *values)) for name, values in _SWEEPS.items()},
}


def get_config(place: str) -> RunConfig:
    """The run of a study, named as `table1/vit_huge`."""
    return find(STUDIES, place)
