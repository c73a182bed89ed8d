"""The studies: what each run of them passes to `experiments.train`."""

from collections.abc import Mapping

from experiments.configs.ire_studies import IRE_STUDIES
from experiments.configs.paper_studies import (
    ALEXNET,
    FULLY_CONVOLUTIONAL,
    PAPER_STUDIES,
    RESNET,
    SIMSIAM,
)
from experiments.configs.published import PUBLISHED

Study = Mapping[str, tuple[str, ...]]  # Name of a run -> flags of `experiments.train`.

_FCN = ("--schedule=cosine", "--epochs=60")
_SMALL = ("--optimizer=adamw", "--weight_decay=0.01", "--schedule=cosine", "--epochs=30")
_WORKLOADS = {
    "fcn_sgd": ("--optimizer=sgd", *_FCN),
    "fcn_momentum": ("--optimizer=momentum", *_FCN),
    "fcn_adam": ("--optimizer=adam", *_FCN),
    "cnn_adamw": ("--model=cnn", *_SMALL),
    "vit_adamw": ("--model=vit", *_SMALL),
    "fcn_adamw": ("--optimizer=adamw", "--weight_decay=0.01", *_FCN),
    "fcn_rmsprop": ("--optimizer=rmsprop", *_FCN),
    "fcn_lamb": ("--optimizer=lamb", *_FCN),
    "fcn_shampoo": ("--optimizer=shampoo", *_FCN, "--seeds=1"),
    "fully_convolutional": (*FULLY_CONVOLUTIONAL, "--seeds=1"),
    "alexnet": (*ALEXNET, "--seeds=1"),
    "resnet18": (*RESNET, "--seeds=1"),
    "simsiam": (*SIMSIAM, "--seeds=1"),
}

# Seeds 1 and 2 served to tune and to explore, and are in no table of results.
_GRIDS = {
    "fcn_sgd": "0.1,0.2,0.3,0.5,0.8",
    "fcn_momentum": "0.05,0.1,0.2,0.3",
    "fcn_adam": "0.003,0.005,0.01,0.02",
    "cnn_adamw": "0.001,0.003,0.005,0.01",
    "vit_adamw": "0.002,0.005,0.01",
    "fcn_adamw": "0.002,0.005,0.01",
    "fcn_rmsprop": "0.001,0.005,0.01,0.02",
    "fcn_lamb": "0.001,0.003,0.01,0.02,0.05",
    "fcn_shampoo": "0.1,0.3,0.5,1.0",
    "fully_convolutional": "0.003,0.01,0.03,0.1",
    "alexnet": "0.01,0.03,0.1",
    "resnet18": "0.1,0.3,1.0,3.0",
    "simsiam": "0.03,0.1,0.3,1.0",
}
_DTYPES = "history_dtype=bfloat16,history_dtype=int8"
# Learning rate, seeds, epochs of `short`, and further flags.
_SEEDS = "0,100,200,300,400"
_TUNED = {
    "fcn_sgd": ("0.3", _SEEDS, 12, ()),
    "fcn_momentum": ("0.1", _SEEDS, 11, ()),
    "fcn_adam": ("0.005", _SEEDS, 18, ("--pdt_reset_momentum",)),
    "cnn_adamw": ("0.005", "0,100,200", 11, ("--pdt_criteria=",)),
    "vit_adamw": (
        "0.005",
        f"{_SEEDS},500,600,700,800,900",  # An epoch of twenty is five per cent.
        19,
        ("--pdt_criteria=", "--pdt_scope=leaf", f"--pdt_vary={_DTYPES}"),
    ),
}

_FAILING = ("--epochs=60", "--seeds=0,100,200", "--baseline", "--pdt")

STUDIES: Mapping[str, Study] = {
    "tuning": {
        name: ("--seeds=1,2", *workload, f"--grid={_GRIDS[name]}")
        for name, workload in _WORKLOADS.items()
    },
    "verified": {
        name: (
            *_WORKLOADS[name],
            f"--learning_rate={rate}",
            f"--seeds={seeds}",
            f"--short_epochs={short}",
            "--baseline",
            "--pdt",
            "--pdt_verify",
            *more,
        )
        for name, (rate, seeds, short, more) in _TUNED.items()
    },
    # What helps the slowest of them, on the seeds that explore.
    "verified_vit": {
        name: (
            *_WORKLOADS["vit_adamw"],
            f"--learning_rate={_TUNED['vit_adamw'][0]}",
            "--seeds=1,2",
            "--baseline",
            "--pdt",
            "--pdt_verify",
            "--pdt_criteria=",
            *settings,
        )
        for name, settings in {
            "default": (),
            "more_examples": ("--pdt_verify_examples=2048",),
            "half_epochs": ("--pdt_snapshot_every=7", "--pdt_verify_horizons=4,10,40"),
            "per_leaf": ("--pdt_scope=leaf",),
        }.items()
    },
    # How many scored examples it takes with Adam.
    "verified_adam": {
        f"examples_{number}": (
            *_WORKLOADS["fcn_adam"],
            "--learning_rate=0.005",
            "--seeds=1,2,3,4,5,6",
            "--pdt",
            "--pdt_verify",
            "--pdt_criteria=",
            f"--pdt_verify_examples={number}",
        )
        for number in (256, 384, 512)
    },
    # Whether a coordinate that jumps should keep its momentum, on the seeds that explore.
    "verified_momentum": {
        f"{name}_{kind}": (
            *_WORKLOADS[name],
            f"--learning_rate={_TUNED[name][0]}",
            f"--seeds={seeds}",
            "--baseline",
            "--pdt",
            "--pdt_verify",
            "--pdt_criteria=",
            *flags,
        )
        for name, seeds in (
            ("fcn_adam", "1,2,3,4,5,6"),
            ("fcn_momentum", "1,2,3"),
            ("cnn_adamw", "1,2"),
            ("vit_adamw", "1,2"),
        )
        for kind, flags in (("keeps", ()), ("forgets", ("--pdt_reset_momentum",)))
    },
    # A history of few directions that has seen all snapshots, on the seeds that explore.
    "verified_streaming": {
        name: (
            *_WORKLOADS[name],
            f"--learning_rate={_TUNED[name][0]}",
            "--seeds=1,2",
            "--baseline",
            "--pdt",
            "--pdt_verify",
            "--pdt_criteria=",
            "--pdt_streaming_ranks=2,4",
        )
        for name in ("fcn_sgd", "fcn_adam")
    },
    # What a history of fewer bytes costs in epochs; for the ViT it is in `verified`.
    "history": {
        name: (
            *_WORKLOADS[name],
            f"--learning_rate={_TUNED[name][0]}",
            "--seeds=0,100,200",
            "--baseline",
            "--pdt",
            "--pdt_verify",
            *_TUNED[name][3],
            "--pdt_criteria=",
            f"--pdt_vary={_DTYPES}",
        )
        for name in ("fcn_sgd", "fcn_adam")
    },
    # What happens without the mask, without intervals, with switching on the validation loss in the
    # place of the mask, and where a random subset goes on as in the last epoch.
    "failures": {
        "non_selective": (*_FAILING, "--pdt_criteria=paper,accept_all"),
        "every_epoch": (*_FAILING, "--pdt_interval=0", "--pdt_criteria=paper"),
        "switching": (*_FAILING, "--pdt_criteria=paper", "--pdt_switching"),
        "random_acceleration": (
            *_FAILING,
            "--pdt_criteria=random_subset",
            "--pdt_predictor=last_increment",
        ),
    },
    **IRE_STUDIES,
    **PAPER_STUDIES,
}

# In the order of the report.
TITLES: Mapping[str, str] = {
    "controls": "Do the simplest methods gain as much? Linear extrapolation under the same mask, a "
    "random mask of equal ratio, no mask, averages, lookahead, schedule-free, a retuned rate, a "
    "shorter schedule.",
    "verified": "Verified jumps on tuned baselines, beside a schedule cut short.",
    "table1": "A fully convolutional network of the published size, and a ViT, AlexNet and "
    "ResNet-18 narrow enough for two CPU cores (Table 1 of the paper).",
    "table2": "Base optimizers (Table 2 of the paper).",
    "table3": "Learning without labels: SimSiam (Table 3).",
    "unmasked": "The networks of Tables 1 and 3 without the mask, and with switching on the "
    "validation loss in its place.",
    "table4": "Every batch of one class, in random order (Table 4).",
    "table5": "Learning rate and batch size (Table 5).",
    "table6": "A cosine schedule (Table 6).",
    "figure2": "Fully connected networks of 2, 4 and 6 layers with and without the mask (Fig. 2).",
    "masks": "The two halves of the mask alone: magnitude and sign.",
    "figure14": "Horizon, interval, start and history of the predictions (Fig. 14).",
    "failures": "What happens without the mask, without intervals, with switching on the "
    "validation loss, and where a random subset goes on as in the last epoch (Figs. 2, 5 and 7).",
    "history": "Verified jumps from a history of fewer bytes a parameter: increments of two bytes "
    "and of one.",
    "verified_vit": "Verified jumps with the ViT: one fit, or one for each array; more scored "
    "examples; shorter periods; on seeds 1 and 2.",
    "verified_adam": "Verified jumps with Adam by the number of scored examples, on seeds 1 to 6, "
    "by a version that scored all candidates.",
    "verified_momentum": "Verified jumps with optimizers whose momentum is kept, or set to zero "
    "where a coordinate jumps, on seeds that are in no other table.",
    "verified_streaming": "Verified jumps from the last five snapshots, and from all of them in "
    "two and in four directions, on seeds 1 and 2.",
    "ire": "Implicit regularization enhancement, alone and before verified jumps.",
    "tuning": "Learning rates, tried on seeds that are in no table of results.",
    "ire_tuning": "Learning rates of implicit regularization enhancement, tried on seed 1.",
}

SCALES = ("smoke", "cpu", "paper")
_SMOKE_LISTS = ("--grid", "--pdt_vary", "--pdt_criteria", "--controls")


def at_scale(name: str, scale: str) -> Study:
    """The runs of a study.

    `cpu`: those of 2 CPU cores; `smoke`: the first of them, short and with few arms; `paper`: those
    of the paper.

    Raises:
      ValueError: if the paper has no such study.
    """
    if scale == "paper" and name not in PUBLISHED:
        raise ValueError(f"must be of {', '.join(PUBLISHED)} at this scale.")
    study = PUBLISHED[name] if scale == "paper" else STUDIES[name]
    if scale != "smoke":
        return study
    run, flags = next(iter(study.items()))
    few = [_first(flag) for flag in flags]
    if "--pdt" in flags:
        few.append("--pdt_snapshot_every=2")
    if any(flag.startswith("--short_epochs=") for flag in flags):
        few.append("--short_epochs=1")
    return {run: (*few, "--epochs=2", "--seeds=1", "--batch_size=256")}


def _first(flag: str) -> str:
    """The first of the values of a flag, if it stands for arms."""
    name, _, values = flag.partition("=")
    return f"{name}={values.split(',')[0]}" if name in _SMOKE_LISTS else flag
