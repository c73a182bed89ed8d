"""The studies of the paper's tables and figures, and of the controls, for 2 CPU cores."""

from collections.abc import Mapping

_SEEDS = "--seeds=0,100,200"
_ARMS = ("--baseline", "--pdt", _SEEDS)
_FCN = ("--epochs=60", *_ARMS)
_SHORT_FCN = ("--epochs=30", *_ARMS)
_COSINE = ("--schedule=cosine", *_FCN)

_DECAY = "--weight_decay=0.01"
_RESET = "--pdt_reset_momentum"
# Learning rates from the study `tuning`.
_OPTIMIZERS = {
    "sgd": ("--learning_rate=0.3",),
    "momentum": ("--learning_rate=0.1",),
    "adam": ("--learning_rate=0.005", _RESET),
    "adamw": ("--learning_rate=0.005", _DECAY, _RESET),
    "rmsprop": ("--learning_rate=0.01",),
    "lamb": ("--learning_rate=0.003", _RESET),
    "shampoo": ("--learning_rate=0.3",),
}
_RATES = ("0.01", "0.03", "0.1")
_BATCH_SIZES = ("64", "256", "1024")
_CRITERIA = "--pdt_criteria=paper,bounded,reference,random"
_CONTROLS = (
    "--pdt_vary=predictor=linear",
    "--pdt_verify",
    "--controls=latest_average,lookahead,schedule_free",
)
# The networks of Tables 1 and 3: one at its published size, the others narrow enough for a CPU.
_SCALED = ("--short_epochs=10", _CRITERIA, *_CONTROLS)
_FEW_EPOCHS = ("--schedule=cosine", "--epochs=15")
_PATCHES = ("--model_width=0.125", "--dataset=patches", *_FEW_EPOCHS)
FULLY_CONVOLUTIONAL = (
    "--model=fully_convolutional",
    "--dataset=patches640",
    "--batch_size=32",
    *_FEW_EPOCHS,
)
ALEXNET = ("--model=alexnet", *_PATCHES)
RESNET = ("--model=resnet18", "--resolution=16", *_PATCHES)
SIMSIAM = (
    "--model=simsiam",
    "--model_width=0.125",
    "--dataset=patches640",
    "--resolution=16",
    "--batch_size=64",
    "--optimizer=momentum",
    "--schedule=cosine",
    "--epochs=24",
)
_NETWORKS = {
    "alexnet": (*ALEXNET, "--learning_rate=0.03", *_ARMS),
    "resnet18": (*RESNET, "--learning_rate=1.0", *_ARMS),
    "vit": (
        "--model=vit",
        *_FEW_EPOCHS,
        "--optimizer=adamw",
        "--learning_rate=0.005",
        _DECAY,
        *_ARMS,
    ),
    "fully_convolutional": (
        *FULLY_CONVOLUTIONAL,
        "--learning_rate=0.03",
        *_ARMS,
        "--seeds=0,100,200,300,400",
    ),
    "simsiam": (*SIMSIAM, "--learning_rate=0.3", *_ARMS, _RESET),
}
_SWEEPS = {
    "horizon": (1, 2, 10, 20),
    "interval": (0, 3, 5, 9),
    "start": (10, 15, 20),
    "history": (3, 4, 8, 10),
}

PAPER_STUDIES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "controls": {
        "fcn_sgd": (
            *_FCN,
            "--seeds=0,100,200,300,400",
            f"{_CRITERIA},accept_all",
            *_CONTROLS,
            "--pdt_switching",
            "--short_epochs=34",
            "--retuned_learning_rate=0.3",
        )
    },
    "table1": {
        name: (*_NETWORKS[name], *_SCALED)
        for name in ("alexnet", "resnet18", "vit", "fully_convolutional")
    },
    "table3": {"simsiam": (*_NETWORKS["simsiam"], *_SCALED, "--short_epochs=16")},
    "unmasked": {
        name: (*network, "--pdt_criteria=accept_all", "--pdt_switching")
        for name, network in _NETWORKS.items()
    },
    "table4": {"fcn_sgd": (*_FCN, "--batches=one_class", "--pdt_verify")},
    "masks": {"fcn_sgd": (*_FCN, "--pdt_criteria=paper,magnitude,sign")},
    "table2": {
        name: (*_COSINE, f"--optimizer={name}", *flags, "--pdt_verify")
        for name, flags in _OPTIMIZERS.items()
    },
    "table5": {
        f"rate{rate}_batch{size}": (*_SHORT_FCN, f"--learning_rate={rate}", f"--batch_size={size}")
        for rate in _RATES
        for size in _BATCH_SIZES
    },
    "table6": {
        "fcn_sgd": (*_COSINE, "--learning_rate=0.3", "--pdt_criteria=paper,bounded,reference")
    },
    "figure2": {
        model: (f"--model={model}", *_SHORT_FCN, "--pdt_criteria=paper,accept_all")
        for model in ("fc2", "fc4", "fc6")
    },
    "figure14": {
        name: (*_SHORT_FCN, "--pdt_vary=" + ",".join(f"{name}={value}" for value in values))
        for name, values in _SWEEPS.items()
    },
}
