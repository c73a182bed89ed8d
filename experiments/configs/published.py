"""The studies with the settings of Wang et al. (2026), for accelerators.

From the configurations that the authors released, with the mask of their code. Where they leave a
grid open the values are ours, and so are Shampoo's, whose updates here are as long as those of SGD.
"""

from collections.abc import Mapping

_SEEDS = "--seeds=0,100,200,300,400"
# In their code `T_i = 1` is every epoch, and the first prediction ends the epoch after `T_0`.
_ARMS = (
    "--baseline",
    "--pdt",
    "--pdt_criteria=reference",
    "--pdt_start=6",
    "--pdt_interval=0",
    _SEEDS,
)
_NO_SCHEDULE = ("--learning_rate=0.05", "--epochs=30")
_CIFAR = ("--dataset=cifar10", "--resolution=128", "--batch_size=256", "--epochs=60", *_ARMS)
_COSINE = ("--schedule=cosine", "--minimum_learning_rate=0.001")
_ALEXNET = ("--model=alexnet", *_CIFAR)
_IMAGENET = (
    "--dataset=imagenet2012",
    "--schedule=cosine",
    "--warmup_epochs=15",
    "--devices=fsdp",
    *_ARMS,
)
_VIT = ("--optimizer=adamw", "--minimum_learning_rate=1e-6", "--epochs=200", *_IMAGENET)

# Peak and last learning rate.
_OPTIMIZERS = {
    "sgd": ("0.1", "1e-3"),
    "momentum": ("0.001", "1e-4"),
    "adam": ("0.0005", "1e-5"),
    "adamw": ("5e-5", "1e-6"),
    "rmsprop": ("1e-4", "1e-6"),
    "lamb": ("1e-3", "1e-6"),
    "shampoo": ("0.1", "1e-3"),
}
_RATES = ("0.01", "0.05", "0.1")
_SWEEPS = {
    "horizon": (1, 3, 10, 20),
    "interval": (2, 4, 9),
    "start": (11, 16, 21),
    "history": (3, 4, 8, 10),
}

PUBLISHED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "table1": {
        "fully_convolutional": (
            "--model=fully_convolutional",
            *_CIFAR,
            *_COSINE,
            "--learning_rate=0.01",
            "--epochs=100",
            "--pdt_horizon=3",
        ),
        "alexnet": (*_ALEXNET, *_COSINE, "--learning_rate=0.05"),
        "resnet50": (
            "--model=resnet50",
            *_IMAGENET,
            "--optimizer=momentum",
            "--learning_rate=0.1",
            "--minimum_learning_rate=1e-4",
            "--weight_decay=1e-4",
            "--batch_size=1800",
            "--epochs=300",
            "--restart_epoch=200",
            "--pdt_adaptive",
        ),
        "vit_base": (
            "--model=vit_base",
            *_VIT,
            "--learning_rate=0.0015",
            "--weight_decay=0.05",
            "--batch_size=1800",
            "--pdt_adaptive",
        ),
        "vit_huge": (
            "--model=vit_huge",
            *_VIT,
            "--learning_rate=0.0005",
            "--weight_decay=0.1",
            "--batch_size=384",
            "--restart_epoch=180",
            "--pdt_scope=leaf",
            "--pdt_adaptive",
        ),
        "lstm": (
            "--model=lstm",
            "--dataset=ag_news_subset",
            "--learning_rate=0.1",
            "--schedule=cosine",
            "--minimum_learning_rate=0.01",
            "--batch_size=128",
            "--epochs=30",
            *_ARMS,
        ),
    },
    "table2": {
        name: (
            *_ALEXNET,
            f"--optimizer={name}",
            f"--learning_rate={rate}",
            "--schedule=cosine",
            f"--minimum_learning_rate={last}",
            *(("--weight_decay=1e-4",) if name in ("momentum", "adamw") else ()),
        )
        for name, (rate, last) in _OPTIMIZERS.items()
    },
    "table3": {
        "simsiam": (
            "--model=simsiam",
            "--dataset=cifar10",
            "--optimizer=momentum",
            "--learning_rate=0.03",
            *_COSINE,
            "--weight_decay=1e-4",
            "--batch_size=256",
            "--epochs=200",
            *_ARMS,
            "--pdt_reset_momentum",
        )
    },
    "table4": {
        "alexnet": (
            *_ALEXNET,
            *_COSINE,
            "--learning_rate=0.05",
            "--batches=one_class",
            "--batch_size=128",
        )
    },
    "table5": {
        f"rate{rate}_batch{size}": (*_ALEXNET, f"--learning_rate={rate}", f"--batch_size={size}")
        for rate in _RATES
        for size in (128, 256, 512)
    },
    "table6": {f"rate{rate}": (*_ALEXNET, *_COSINE, f"--learning_rate={rate}") for rate in _RATES},
    "figure2": {
        model: (
            f"--model={model}",
            *_CIFAR,
            "--learning_rate=0.01",
            "--epochs=30",
            "--pdt_interval=2",
            "--pdt_criteria=reference,accept_all",
        )
        for model in ("fc2", "fc4", "fc6")
    },
    "failures": {
        "switching": (
            *_ALEXNET,
            *_NO_SCHEDULE,
            "--pdt_start=11",
            "--pdt_horizon=1",
            "--pdt_history=10",
            "--pdt_switching",
        ),
        "random_acceleration": (
            *_ALEXNET,
            *_NO_SCHEDULE,
            "--pdt_criteria=random_subset",
            "--pdt_predictor=last_increment",
        ),
        "random_mask": (
            *_ALEXNET,
            "--learning_rate=0.01",
            "--epochs=30",
            "--pdt_horizon=3",
            "--pdt_criteria=reference,random",
        ),
    },
    "masks": {
        "alexnet": (
            *_ALEXNET,
            *_COSINE,
            "--learning_rate=0.05",
            "--pdt_criteria=reference,reference_magnitude,reference_sign",
        )
    },
    "figure14": {
        name: (
            *_ALEXNET,
            *_NO_SCHEDULE,
            "--pdt_vary=" + ",".join(f"{name}={value}" for value in values),
        )
        for name, values in _SWEEPS.items()
    },
}
