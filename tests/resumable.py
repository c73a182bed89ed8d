"""One process of a training run that goes on from its last checkpoint.

    python -m tests.resumable --directory=D --layout=fsdp --process=0 --processes=2 --port=P

Says at which step it starts and, at the end, a digest of what it holds of parameters and optimizer
state. With `--stop_at` it says "stopped" there and waits to be killed.
"""

import argparse
import hashlib
import signal

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np
import optax
import orbax.checkpoint as ocp

import pdt_optax

EPOCHS, STEPS, SAVE_EVERY = 5, 8, 10
PATIENCE = 1800  # seconds; on a busy machine a process may not run for minutes
SAYS = "resumable:"
LAYOUTS = {"data": P(), "fsdp": P("data")}


def loss(params, batch):
    inputs, targets = batch
    hidden = jnp.tanh(inputs @ params["kernel"] + params["bias"])
    return jnp.mean((hidden @ params["out"] - targets) ** 2)


def initial_params():
    keys = jax.random.split(jax.random.key(0))
    return {
        "kernel": jax.random.normal(keys[0], (8, 16)) / 3,
        "bias": jnp.zeros(16),
        "out": jax.random.normal(keys[1], (16, 4)) / 4,
    }


def batch(step):
    """Another order of the same 64 examples in each epoch."""
    epoch, index = divmod(step, STEPS)
    examples = np.random.default_rng(0).normal(size=(64, 12)).astype(np.float32)
    taken = np.random.default_rng(epoch).permutation(64).reshape(STEPS, -1)[index]
    return examples[taken, :8], examples[taken, 8:]


def digest(tree):
    """Of the bytes on the devices of this process."""
    seen = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            seen.update(np.asarray(shard.data).tobytes())
    return seen.hexdigest()


def say(*words):
    """Gloo and logging write to the same stream."""
    print(SAYS, *words, flush=True)


def main(options):
    if options.processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        address = f"127.0.0.1:{options.port}"
        jax.distributed.initialize(
            address,
            options.processes,
            options.process,
            initialization_timeout=PATIENCE,
            heartbeat_timeout_seconds=PATIENCE,
        )
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, P("data"))
    layout = NamedSharding(mesh, LAYOUTS[options.layout])
    jump = pdt_optax.Extrapolate(history=3, start=3, interval=0)
    tx = optax.chain(optax.adam(0.02), pdt_optax.pdt(STEPS, jump))

    def init():
        params = initial_params()
        return params, tx.init(params)

    placed = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=layout),
        jax.eval_shape(initial_params),
    )
    shardings = (
        jax.tree.map(lambda _: layout, placed),
        pdt_optax.state.state_shardings(tx, placed),
    )
    target = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(init),
        shardings,
    )

    def step(train_state, batch):
        params, opt_state = train_state
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params, value=value)
        return optax.apply_updates(params, updates), opt_state

    step = jax.jit(step, in_shardings=(shardings, split), out_shardings=shardings)
    saving = ocp.CheckpointManagerOptions(save_interval_steps=SAVE_EVERY, max_to_keep=2)
    with ocp.CheckpointManager(options.directory, options=saving) as manager:
        first = manager.latest_step() or 0
        if first:
            train_state = manager.restore(first, args=ocp.args.StandardRestore(target))
        else:
            train_state = jax.jit(init, out_shardings=shardings)()
        say(first)
        for number in range(first, EPOCHS * STEPS):
            if number == options.stop_at:
                say("stopped")
                signal.pause()
            examples = jax.tree.map(
                lambda array: jax.make_array_from_callback(
                    array.shape, split, lambda index: array[index]
                ),
                batch(number),
            )
            # Steps in flight together may reach their collectives in another order elsewhere.
            train_state = jax.block_until_ready(step(train_state, examples))
            manager.save(number + 1, args=ocp.args.StandardSave(train_state))
    say(digest(train_state), pdt_optax.metrics(train_state[1]).predictions)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", required=True)
    parser.add_argument("--layout", choices=LAYOUTS, required=True)
    parser.add_argument("--process", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--port", type=int)
    parser.add_argument("--stop_at", type=int)
    main(parser.parse_args())
