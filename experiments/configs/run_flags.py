"""The flags of a run but those of PDT: what is trained, for how long, beside which controls."""

import dataclasses
import functools
import math
import sys

from absl import flags

from experiments.configs.flag_checks import is_distinct, is_integers, is_rates
from experiments.data import DATASETS, ORDERS, ArrayDataset, MissingDataError
from experiments.models import MODELS
from experiments.runs import hosts, workloads
from experiments.runs.controls import CONTROLS
from experiments.runs.optimizers import OPTIMIZERS, SCHEDULES
from experiments.runs.placement import PLACEMENTS, Placement

MODEL = flags.DEFINE_enum("model", "fcn", list(MODELS), "What is trained.")
DATASET = flags.DEFINE_enum("dataset", "mnist5k", list(DATASETS), "What it is trained on.")
WIDTH = flags.DEFINE_float(
    "model_width", 1.0, "Multiple of the model's numbers of channels or units.", lower_bound=0.0
)
DEPTH = flags.DEFINE_float(
    "model_depth",
    1.0,
    "Multiple of the number of blocks, for vision transformers.",
    lower_bound=0.0,
)
RESOLUTION = flags.DEFINE_integer(
    "resolution", None, "Pixels a side to which images are resized on the device.", lower_bound=1
)
ORDER = flags.DEFINE_enum(
    "batches", "shuffled", list(ORDERS), "Batches of all classes, or of one class each."
)
OPTIMIZER = flags.DEFINE_enum("optimizer", "sgd", list(OPTIMIZERS), "The base optimizer.")
LEARNING_RATE = flags.DEFINE_float("learning_rate", 0.01, "Peak learning rate.", lower_bound=0.0)
SCHEDULE = flags.DEFINE_enum("schedule", "constant", list(SCHEDULES), "Learning rate over the run.")
MINIMUM_RATE = flags.DEFINE_float(
    "minimum_learning_rate", 0.0, "Where --schedule=cosine ends.", lower_bound=0.0
)
WARMUP_EPOCHS = flags.DEFINE_integer(
    "warmup_epochs",
    0,
    "Passes over which --schedule=cosine rises from a tenth, a part of --epochs.",
    lower_bound=0,
)
RESTART_EPOCH = flags.DEFINE_integer(
    "restart_epoch",
    0,
    "Pass from which --schedule=cosine falls a second time, from ten times "
    "--minimum_learning_rate; 0 for none.",
    lower_bound=0,
)
MOMENTUM = flags.DEFINE_float(
    "momentum", 0.9, "Coefficient of --optimizer=momentum.", lower_bound=0.0, upper_bound=1.0
)
WEIGHT_DECAY = flags.DEFINE_float(
    "weight_decay",
    0.0,
    "Decoupled weight decay of adamw, lamb and muon; an L2 term of the gradient for the others.",
    lower_bound=0.0,
)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 256, "Examples per step; an epoch drops the remainder.", lower_bound=1
)
EPOCHS = flags.DEFINE_integer("epochs", 60, "Passes over the train split.", lower_bound=1)
SEEDS = flags.DEFINE_list(
    "seeds", ["0"], "Seeds of the initialisation and of the batches, e.g. 0,100,200."
)
BASELINE = flags.DEFINE_bool(
    "baseline",
    False,
    "Also train the optimizer alone, from the same initialisation on the same batches, in turn "
    "epoch by epoch, and compare. Without --pdt it is what is trained anyway.",
)
GRID = flags.DEFINE_list(
    "grid",
    [],
    "Learning rates: instead of all else the optimizer alone is trained with each, to tune it.",
)
SHORT_EPOCHS = flags.DEFINE_integer(
    "short_epochs",
    0,
    "Also train an arm `short`: the optimizer alone with its schedule cut to so many epochs, a "
    "control. 0 for none.",
    lower_bound=0,
)
RETUNED_RATE = flags.DEFINE_float(
    "retuned_learning_rate",
    None,
    "Also train an arm `retuned`: the optimizer alone with this learning rate, a control.",
    lower_bound=0.0,
)
CONTROL_NAMES = flags.DEFINE_list(
    "controls", [], f"Other ways to gain from past weights, an arm each, of {', '.join(CONTROLS)}."
)
RUN_DIR = flags.DEFINE_string(
    "run_dir", None, "Folder of records, table and picture; by default named after the flags."
)
CHECKPOINT_MINUTES = flags.DEFINE_float(
    "checkpoint_minutes",
    10.0,
    "Time between checkpoints. Ctrl-C and SIGTERM save one as well, and the same command goes on.",
    lower_bound=0.0,
)
DEVICES = flags.DEFINE_enum(
    "devices",
    "one",
    list(PLACEMENTS),
    "one: the default device; data: batches are split over all devices of all processes; fsdp: "
    "parameters and optimizer state as well.",
)
COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "Of a run of several processes the address:port of the first; auto on TPU pods and under "
    "Slurm. All see the same run folder. Needs --devices=data or fsdp.",
)
NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes there are.", lower_bound=1
)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is.", lower_bound=0)
TENSORBOARD = flags.DEFINE_bool(
    "tensorboard", False, "Also write the records as TensorBoard events into the run folder."
)

for number in (
    WIDTH,
    DEPTH,
    MINIMUM_RATE,
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    CHECKPOINT_MINUTES,
):
    flags.register_validator(number.name, math.isfinite, "must be a finite number.")
for number in (WIDTH, DEPTH):
    flags.register_validator(number.name, bool, "must be above 0.")
flags.register_validator("grid", is_rates, "must be learning rates, separated by commas.")
flags.register_validator(
    "retuned_learning_rate",
    lambda rate: rate is None or 0 < rate < math.inf,
    "must be a finite number above 0.",
)
flags.register_validator("seeds", is_integers, "must be integers from 0, separated by commas.")
flags.register_validator(
    "seeds",
    lambda seeds: is_distinct([str(int(seed)) for seed in seeds]),
    "must be one or more different ones.",
)
flags.register_validator(
    "controls",
    lambda names: not names or (is_distinct(names) and set(names) <= set(CONTROLS)),
    f"must be different ones of {', '.join(CONTROLS)}.",
)


def join() -> None:
    """Joins the other processes; stops the program if the flags do not say how."""
    coordinator, number, process = COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value
    if coordinator is None and (number is not None or process is not None):
        sys.exit("flag --coordinator: must be given with --num_processes and --process_id.")
    if coordinator not in (None, hosts.AUTO) and (number is None or process is None):
        sys.exit("flag --coordinator: needs --num_processes and --process_id.")
    if coordinator is not None and DEVICES.value == "one":
        sys.exit("flag --coordinator: needs --devices=data or fsdp.")
    if number is not None and process is not None and process >= number:
        sys.exit(f"flag --process_id={process}: must be below --num_processes={number}.")
    try:
        hosts.join(coordinator, number, process)
    except (RuntimeError, ValueError) as error:
        sys.exit(f"flag --coordinator={coordinator}: {error}")


def check(has_pdt: bool) -> None:
    """Stops the program if the flags do not fit together."""
    others = (BASELINE, SHORT_EPOCHS, RETUNED_RATE, CONTROL_NAMES)
    if GRID.value and (has_pdt or any(flag.value for flag in others)):
        sys.exit("flag --grid: trains the optimizer alone; leave out the flags of other arms.")
    if SCHEDULE.value == "cosine" and not LEARNING_RATE.value:
        sys.exit("flag --learning_rate: must be above 0 with --schedule=cosine.")
    if MINIMUM_RATE.value and SCHEDULE.value == "constant":
        sys.exit("flag --minimum_learning_rate: needs --schedule=cosine.")
    if MOMENTUM.value != MOMENTUM.default and OPTIMIZER.value != "momentum":
        sys.exit("flag --momentum: needs --optimizer=momentum.")
    if SHORT_EPOCHS.value >= EPOCHS.value:
        sys.exit(
            f"flag --short_epochs={SHORT_EPOCHS.value}: must be below --epochs={EPOCHS.value}."
        )
    if WARMUP_EPOCHS.value and (
        SCHEDULE.value == "constant" or WARMUP_EPOCHS.value >= EPOCHS.value
    ):
        sys.exit("flag --warmup_epochs: needs --schedule=cosine and more --epochs.")
    if RESTART_EPOCH.value and not (
        MINIMUM_RATE.value
        and SCHEDULE.value == "cosine"
        and WARMUP_EPOCHS.value < RESTART_EPOCH.value < EPOCHS.value
    ):
        sys.exit(
            "flag --restart_epoch: needs --schedule=cosine, a --minimum_learning_rate, fewer "
            "--warmup_epochs and more --epochs."
        )
    for name in CONTROL_NAMES.value:
        optimizers = CONTROLS[name].optimizers
        if optimizers and OPTIMIZER.value not in optimizers:
            sys.exit(
                f"flag --controls={name}: needs --optimizer to be one of {', '.join(optimizers)}."
            )


def placement() -> Placement:
    """Where the flags say the run lies; stops the program if a batch cannot be divided."""
    found = PLACEMENTS[DEVICES.value]()
    if found.mesh is not None and BATCH_SIZE.value % found.mesh.size:
        sys.exit(
            f"flag --batch_size={BATCH_SIZE.value}: must be a multiple of the {found.mesh.size} "
            f"devices of --devices={DEVICES.value}."
        )
    return found


def workload() -> workloads.Workload:
    """What the flags say is trained; stops the program if they do not fit together."""
    scale = {"width": WIDTH, "depth": DEPTH}
    scale = {name: flag.value for name, flag in scale.items() if flag.value != flag.default}
    try:
        dataset = DATASETS[DATASET.value]()
        if ORDER.value != ORDER.default:
            if not isinstance(dataset, ArrayDataset):
                sys.exit(f"flag --batches={ORDER.value}: needs a data set that is held in memory.")
            dataset = dataclasses.replace(dataset, order=ORDERS[ORDER.value])
        model = functools.partial(MODELS[MODEL.value], **scale)
        return workloads.create(model, dataset, RESOLUTION.value)
    except MissingDataError as error:
        sys.exit(f"flag --dataset={DATASET.value}: {error}")
    except (TypeError, ValueError) as error:
        sys.exit(f"flag --model={MODEL.value}: {error}")
    except ZeroDivisionError:
        sys.exit(f"flag --model_width={WIDTH.value}: leaves a layer without units.")
