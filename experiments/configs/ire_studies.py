"""The studies of implicit regularization enhancement on images, for 2 CPU cores."""

from collections.abc import Mapping

_CNN = (
    "--model=cnn",
    "--optimizer=adamw",
    "--weight_decay=0.01",
    "--schedule=cosine",
    "--epochs=30",
    "--ire_kappa=2",
)
_GRID = "--grid=0.001,0.002,0.003,0.005"

IRE_STUDIES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "ire_tuning": {
        f"cnn_{mask}": (*_CNN, f"--ire_masks={mask}", "--seeds=1", _GRID)
        for mask in ("flat", "random")
    },
    "ire": {
        "cnn": (
            *_CNN,
            "--learning_rate=0.005",
            "--ire_learning_rate=0.003",
            "--ire_masks=flat,random",
            "--seeds=0,100,200",
            "--baseline",
            "--pdt",
            "--pdt_criteria=",
            "--pdt_verify",
            "--ire_pdt",
        )
    },
}
