"""The studies for 2 CPU cores: of the README, of the paper's tables and figures, of the controls.

python -m experiments.train --config=experiments/configs/cpu.py:table2/adam
"""

from experiments.configs.base import RunConfig, Studies, find, run, sweep

# Seeds 1 and 2 served to tune and to explore, and are in no table of results.
_EXPLORED, _SIX = (1, 2), (1, 2, 3, 4, 5, 6)
_THREE, _FIVE = (0, 100, 200), (0, 100, 200, 300, 400)
_TEN = (*_FIVE, 500, 600, 700, 800, 900)

_FCN = {"schedule": "cosine", "epochs": 60}
_FEW = {"schedule": "cosine", "epochs": 15}
_ADAMW = {"optimizer": "adamw", "weight_decay": 0.01}
_SMALL = {**_ADAMW, "schedule": "cosine", "epochs": 30}
_RESET = {"pdt_reset_momentum": True}

# The networks of Tables 1 and 3: one at its published size, the others narrow enough for a CPU.
_WIDE = {"model": "fully_convolutional", "dataset": "patches640", "batch_size": 32, **_FEW}
_NARROW = {"model_width": 0.125, "dataset": "patches", **_FEW}
_ALEXNET = {"model": "alexnet", **_NARROW}
_RESNET = {"model": "resnet18", "resolution": 16, **_NARROW}
_IMAGES = {"model_width": 0.125, "dataset": "patches640", "resolution": 16, "batch_size": 64}
_MOMENTUM = {"optimizer": "momentum", "schedule": "cosine", "epochs": 24}
_SIMSIAM = {"model": "simsiam", **_IMAGES, **_MOMENTUM}

# Learning rates that are tried.
_GRIDS = {
    "fcn_sgd": ({"optimizer": "sgd", **_FCN}, (0.1, 0.2, 0.3, 0.5, 0.8)),
    "fcn_momentum": ({"optimizer": "momentum", **_FCN}, (0.05, 0.1, 0.2, 0.3)),
    "fcn_adam": ({"optimizer": "adam", **_FCN}, (0.003, 0.005, 0.01, 0.02)),
    "cnn_adamw": ({"model": "cnn", **_SMALL}, (0.001, 0.003, 0.005, 0.01)),
    "vit_adamw": ({"model": "vit", **_SMALL}, (0.002, 0.005, 0.01)),
    "fcn_adamw": ({**_ADAMW, **_FCN}, (0.002, 0.005, 0.01)),
    "fcn_rmsprop": ({"optimizer": "rmsprop", **_FCN}, (0.001, 0.005, 0.01, 0.02)),
    "fcn_lamb": ({"optimizer": "lamb", **_FCN}, (0.001, 0.003, 0.01, 0.02, 0.05)),
    "fcn_shampoo": ({"optimizer": "shampoo", **_FCN, "seeds": (1,)}, (0.1, 0.3, 0.5, 1.0)),
    "fully_convolutional": ({**_WIDE, "seeds": (1,)}, (0.003, 0.01, 0.03, 0.1)),
    "alexnet": ({**_ALEXNET, "seeds": (1,)}, (0.01, 0.03, 0.1)),
    "resnet18": ({**_RESNET, "seeds": (1,)}, (0.1, 0.3, 1.0, 3.0)),
    "simsiam": ({**_SIMSIAM, "seeds": (1,)}, (0.03, 0.1, 0.3, 1.0)),
}
# With the best of them.
_TUNED = {
    "fcn_sgd": {"optimizer": "sgd", "learning_rate": 0.3, **_FCN},
    "fcn_momentum": {"optimizer": "momentum", "learning_rate": 0.1, **_FCN},
    "fcn_adam": {"optimizer": "adam", "learning_rate": 0.005, **_FCN},
    "cnn_adamw": {"model": "cnn", "learning_rate": 0.005, **_SMALL},
    "vit_adamw": {"model": "vit", "learning_rate": 0.005, **_SMALL},
}
_VERIFIED = {"baseline": True, "pdt_verify": True}
_ALONE = {**_VERIFIED, "pdt_criteria": ()}
_DMD_TOO = {"pdt_verify_predictors": ("dmd", "linear"), "pdt_start": 5}
_DTYPES = sweep("history_dtype", "bfloat16", "int8")
_VERIFIED_RUNS = {
    "fcn_sgd": {"seeds": _FIVE, "short_epochs": 12},
    "fcn_momentum": {"seeds": _FIVE, "short_epochs": 11},
    "fcn_adam": {"seeds": _FIVE, "short_epochs": 18, **_RESET},
    "cnn_adamw": {"seeds": _THREE, "short_epochs": 11, **_ALONE},
    "vit_adamw": {"seeds": _FIVE, "short_epochs": 19, **_ALONE, "pdt_scope": "leaf"},
}
_WITH_DMD_RUNS = {  # Ten seeds of the ViT: an epoch of twenty is five per cent.
    **_VERIFIED_RUNS,
    "vit_adamw": {**_VERIFIED_RUNS["vit_adamw"], "seeds": _TEN, **_DTYPES},
}
_VIT_RUNS = {
    "default": {},
    "more_examples": {"pdt_verify_examples": 2048},
    "half_epochs": {"pdt_snapshot_every": 7, "pdt_verify_horizons": (4, 10, 40)},
    "per_leaf": {"pdt_scope": "leaf"},
}
_MOMENTUM_RUNS = {"fcn_adam": _SIX, "fcn_momentum": (1, 2, 3), "cnn_adamw": (1, 2)}

_ARMS = {"baseline": True, "pdt": True, "seeds": _THREE}
_LONG, _SHORT, _COSINE = {"epochs": 60, **_ARMS}, {"epochs": 30, **_ARMS}, {**_FCN, **_ARMS}
_OPTIMIZERS = {
    "sgd": {"learning_rate": 0.3},
    "momentum": {"learning_rate": 0.1},
    "adam": {"learning_rate": 0.005, **_RESET},
    "adamw": {"learning_rate": 0.005, "weight_decay": 0.01, **_RESET},
    "rmsprop": {"learning_rate": 0.01},
    "lamb": {"learning_rate": 0.003, **_RESET},
    "shampoo": {"learning_rate": 0.3},
}
_MASKS = ("paper", "bounded", "reference", "random")
_AVERAGES = ("latest_average", "lookahead", "schedule_free")
_OTHERS = {"controls": _AVERAGES, "pdt_verify": True, **_DMD_TOO}
_CONTROLS = {**sweep("predictor", "linear"), **_OTHERS}
_SCALED = {"short_epochs": 10, "pdt_criteria": _MASKS, **_CONTROLS}
_NETWORKS = {
    "alexnet": {**_ALEXNET, "learning_rate": 0.03, **_ARMS},
    "resnet18": {**_RESNET, "learning_rate": 1.0, **_ARMS},
    "vit": {"model": "vit", **_FEW, **_ADAMW, "learning_rate": 0.005, **_ARMS},
    "fully_convolutional": {**_WIDE, "learning_rate": 0.03, **_ARMS, "seeds": _FIVE},
    "simsiam": {**_SIMSIAM, "learning_rate": 0.3, **_ARMS, **_RESET},
}
_SWEEPS = {
    "horizon": (1, 2, 10, 20),
    "interval": (0, 3, 5, 9),
    "start": (10, 15, 20),
    "history": (3, 4, 8, 10),
}
_IRE = {"model": "cnn", **_SMALL, "ire_kappa": 2.0}
_IRE_GRID = {"seeds": (1,), "lr_grid": (0.001, 0.002, 0.003, 0.005)}
_IRE_ARMS = {"ire_learning_rate": 0.003, "ire_masks": ("flat", "random"), "ire_pdt": True}

STUDIES: Studies = {
    "tuning": {
        name: run({"seeds": _EXPLORED}, workload, lr_grid=rates)
        for name, (workload, rates) in _GRIDS.items()
    },
    "verified": {n: run(_TUNED[n], _VERIFIED, more) for n, more in _VERIFIED_RUNS.items()},
    # With a DMD among the candidates, as in all with `_DMD_TOO`, which are older than the default.
    "verified_dmd": {
        n: run(_TUNED[n], _VERIFIED, _DMD_TOO, more) for n, more in _WITH_DMD_RUNS.items()
    },
    # What helps the slowest of them, on the seeds that explore.
    "verified_vit": {
        name: run(_TUNED["vit_adamw"], _ALONE, _DMD_TOO, more, seeds=_EXPLORED)
        for name, more in _VIT_RUNS.items()
    },
    # How many scored examples it takes with Adam.
    "verified_adam": {
        f"examples_{n}": run(
            _TUNED["fcn_adam"],
            _ALONE,
            _DMD_TOO,
            baseline=False,
            seeds=_SIX,
            pdt_verify_examples=n,
        )
        for n in (256, 384, 512)
    },
    # Whether a coordinate that jumps should keep its momentum, on the seeds that explore.
    "verified_momentum": {
        f"{name}_{kind}": run(_TUNED[name], _ALONE, _DMD_TOO, more, seeds=seeds)
        for name, seeds in {**_MOMENTUM_RUNS, "vit_adamw": _EXPLORED}.items()
        for kind, more in (("keeps", {}), ("forgets", _RESET))
    },
    # Solved jumps where training has mini-batches and a few examples are scored.
    "solved": {
        name: run(_TUNED[name], baseline=True, seeds=_THREE, pdt_criteria=(), pdt_solve=True)
        for name in ("fcn_sgd", "fcn_adam")
    },
    # A history of few directions that has seen all snapshots, on the seeds that explore.
    "verified_streaming": {
        name: run(_TUNED[name], _ALONE, _DMD_TOO, seeds=_EXPLORED, pdt_streaming_ranks=(2, 4))
        for name in ("fcn_sgd", "fcn_adam")
    },
    # What a history of fewer bytes costs in epochs; for the ViT it is in `verified_dmd`.
    "history": {
        name: run(_TUNED[name], _ALONE, _DMD_TOO, _DTYPES, more, seeds=_THREE)
        for name, more in (("fcn_sgd", {}), ("fcn_adam", _RESET))
    },
    # What happens without the mask, without intervals, with switching on the validation loss in the
    # place of the mask, and where a random subset goes on as in the last epoch.
    "failures": {
        "non_selective": run(_LONG, pdt_criteria=("paper", "accept_all")),
        "every_epoch": run(_LONG, pdt_interval=0),
        "switching": run(_LONG, pdt_switching=True),
        "random_acceleration": run(
            _LONG, pdt_criteria=("random_subset",), pdt_predictor="last_increment"
        ),
    },
    "ire_tuning": {
        f"cnn_{mask}": run(_IRE, _IRE_GRID, ire_masks=(mask,)) for mask in ("flat", "random")
    },
    "ire": {"cnn": run(_IRE, _IRE_ARMS, _ALONE, _DMD_TOO, learning_rate=0.005, seeds=_THREE)},
    "controls": {
        "fcn_sgd": run(
            {**_LONG, **_CONTROLS, "seeds": _FIVE, "pdt_criteria": (*_MASKS, "accept_all")},
            {"pdt_switching": True, "short_epochs": 34, "retuned_learning_rate": 0.3},
        )
    },
    "table1": {name: run(_NETWORKS[name], _SCALED) for name in list(_NETWORKS)[:4]},
    "table3": {"simsiam": run(_NETWORKS["simsiam"], _SCALED, short_epochs=16)},
    "unmasked": {
        name: run(network, pdt_criteria=("accept_all",), pdt_switching=True)
        for name, network in _NETWORKS.items()
    },
    "table4": {"fcn_sgd": run(_LONG, _DMD_TOO, batch_order="one_class", pdt_verify=True)},
    "masks": {"fcn_sgd": run(_LONG, pdt_criteria=("paper", "magnitude", "sign"))},
    "table2": {
        name: run(_COSINE, _DMD_TOO, more, optimizer=name, pdt_verify=True)
        for name, more in _OPTIMIZERS.items()
    },
    "table5": {
        f"rate{rate}_batch{size}": run(_SHORT, learning_rate=rate, batch_size=size)
        for rate in (0.01, 0.03, 0.1)
        for size in (64, 256, 1024)
    },
    "table6": {"fcn_sgd": run(_COSINE, learning_rate=0.3, pdt_criteria=_MASKS[:3])},
    "figure2": {
        model: run(_SHORT, model=model, pdt_criteria=("paper", "accept_all"))
        for model in ("fc2", "fc4", "fc6")
    },
    "figure14": {name: run(_SHORT, sweep(name, *values)) for name, values in _SWEEPS.items()},
}


def get_config(place: str) -> RunConfig:
    """The run of a study, named as `table2/adam`."""
    return find(STUDIES, place)
