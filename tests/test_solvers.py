"""The recipes of docs/recipes.md for optimistix and jinns, which write the loop themselves."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix
import pytest
import recipes

import pdt_optax

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import jinns


def rosenbrock(y, args):
    """Residuals; their least is at ``(args, args**2)``."""
    w = y["w"]
    return {"narrow": 10 * (w[1:] - w[:1] ** 2), "wide": args - w[:1]}


def beale(y, args):
    """Residuals; their least is at ``(3, 0.5)``."""
    first, second = y["w"]
    powers = second ** jnp.arange(1, 4)
    return args * jnp.array([1.5, 2.25, 2.625]) - first * (1 - powers)


def himmelblau(y, args):
    """Residuals; they are zero at four points."""
    first, second = y["w"]
    return jnp.array([first**2 + second - 11 * args, first + second**2 - 7 * args])


FUNCTIONS = {
    "rosenbrock": (rosenbrock, jnp.array([-1.2, 1.0])),
    "beale": (beale, jnp.array([1.0, 1.0])),
    "himmelblau": (himmelblau, jnp.array([0.0, 0.0])),
}
"""Test functions of optimistix with the usual starts."""


def half_squares(residuals):
    return lambda y, args: sum(jnp.sum(r**2) for r in jax.tree.leaves(residuals(y, args))) / 2


def link(jump):
    return optax.chain(optax.adam(0.05), pdt_optax.pdt(10, recipes.JUMPS[jump]))


def given(tx, function, **others):
    residuals, start = FUNCTIONS[function]
    names = {"optimistix": optimistix, "optax": optax, "pdt_optax": pdt_optax, "tx": tx}
    names |= {"residuals": residuals, "fn": half_squares(residuals), "start": {"w": start}}
    return names | {"args": jnp.array(1.0)} | others


@pytest.mark.parametrize(
    ("jump", "function"),
    [
        pytest.param("extrapolate", "rosenbrock", marks=pytest.mark.slow),  # Blind, it may diverge.
        ("verify", "rosenbrock"),
        *[
            pytest.param(jump, function, marks=pytest.mark.slow)
            for jump in ("verify", "solve")
            for function in FUNCTIONS
            if (jump, function) != ("verify", "rosenbrock")
        ],
    ],
)
def test_optimistix_minimises_as_a_loop_by_hand(jump, function):
    names = recipes.run("Minimisation", **given(link(jump), function))
    solution, metrics = names["solution"], names["metrics"]
    residuals, start = FUNCTIONS[function]
    fn, steps = half_squares(residuals), int(solution.stats["num_steps"])
    _, state = recipes.by_hand(
        link(jump), lambda leaves: fn({"w": leaves[0]}, 1.0), [start], steps, is_blind=False
    )
    assert metrics.predictions == pdt_optax.metrics(state).predictions > 0
    assert fn(solution.value, 1.0) < 1e-5


@pytest.mark.parametrize(
    "function",
    [pytest.param(name, marks=() if name == "beale" else pytest.mark.slow) for name in FUNCTIONS],
)
def test_optimistix_least_squares(function):
    """Solved jumps by residuals reach the least; Adam alone is not there after as many steps."""
    names = recipes.run("Least squares", **given(link("solve"), function))
    solution, fn = names["solution"], names["fn"]
    steps = int(solution.stats["num_steps"])
    alone = optimistix.OptaxMinimiser(optax.adam(0.05), rtol=0, atol=0)
    plain = optimistix.minimise(fn, alone, names["start"], 1.0, max_steps=steps, throw=False)
    assert pdt_optax.metrics(solution.state.opt_state).predictions == steps // 10
    assert fn(solution.value, 1.0) < 1e-5
    assert fn(solution.value, 1.0) < fn(plain.value, 1.0)


@pytest.mark.slow
def test_levenberg_marquardt_is_the_better_choice_for_few_parameters():
    """What the page says: tens of steps, to a lower end, where solved jumps take hundreds."""
    names = recipes.run("Least squares", **given(link("solve"), "rosenbrock"))
    solved, fn = names["solution"], names["fn"]
    solver = optimistix.LevenbergMarquardt(rtol=1e-6, atol=1e-6)
    best = optimistix.least_squares(rosenbrock, solver, names["start"], 1.0)
    assert best.stats["num_steps"] < 100 < solved.stats["num_steps"]
    assert fn(best.value, 1.0) <= fn(solved.value, 1.0)


class Poisson(jinns.loss.PDEStatio):
    """The Laplacian of u is -2 pi^2 sin(pi x) sin(pi y), with u zero on the border."""

    def equation(self, x, u, params):
        laplacian = jnp.trace(jax.hessian(lambda x: u(x, params)[0])(x))
        return jnp.atleast_1d(laplacian - source(x))


def source(x):
    return -2 * jnp.pi**2 * jnp.sin(jnp.pi * x[0]) * jnp.sin(jnp.pi * x[1])


def poisson():
    """Parameters, points and loss as the documentation of jinns makes them."""
    layers = ((eqx.nn.Linear, 2, 16), (jnp.tanh,), (eqx.nn.Linear, 16, 1))
    u, network = jinns.nn.PINN_MLP.create(
        key=jax.random.key(0), eqx_list=layers, eq_type="PDEStatio"
    )
    params = jinns.parameters.Params(nn_params=network, eq_params={})
    weights = jinns.loss.LossWeightsPDEStatio(dyn_loss=1.0, boundary_loss=20.0)
    border = jinns.loss.Dirichlet()
    loss = jinns.loss.LossPDEStatio(
        u=u,
        dynamic_loss=Poisson(),
        boundary_condition=border,
        loss_weights=weights,
        params=params,
    )
    data = jinns.data.CubicMeshPDEStatio(
        key=jax.random.key(1),
        n=100,
        nb=40,
        omega_batch_size=None,
        omega_border_batch_size=None,
        dim=2,
        min_pts=(0.0, 0.0),
        max_pts=(1.0, 1.0),
        method="uniform",
    )
    return params, loss, data


def loss_by_hand(data):
    """The same loss of a list of arrays, without jinns."""
    _, batch = data.get_batch()

    def u(leaves, x):
        first, first_bias, last, last_bias = leaves
        return (last @ jnp.tanh(first @ x + first_bias) + last_bias)[0]

    def loss(leaves):
        def residual(x):
            return jnp.trace(jax.hessian(u, argnums=1)(leaves, x)) - source(x)

        inside = jax.vmap(residual)(batch.domain_batch)
        points = jnp.moveaxis(batch.border_batch, 2, 0).reshape(-1, 2)
        border = jax.vmap(lambda x: u(leaves, x))(points)
        return jnp.mean(inside**2) + 20 * 4 * jnp.mean(border**2)

    return loss


PREDICTIONS = {"extrapolate": 9, "verify": 18, "solve": 20}
"""In twenty periods, the first at the end of the third, or of the first for Solve."""
HEADINGS = "Physics-informed networks", "Residuals of a loss of jinns"


def test_residuals_behind_a_line_search():
    names = recipes.run("Least squares", **given(link("solve"), "rosenbrock"))
    residuals, start = FUNCTIONS["rosenbrock"]
    args, params = jnp.array(1.0), {"w": start}
    jumps = names["with_residuals"](
        pdt_optax.pdt(2, pdt_optax.Solve(history=3)), lambda y: residuals(y, args)
    )
    tx = optax.chain(optax.lbfgs(), jumps)

    def fn(y):
        return half_squares(residuals)(y, args)

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(fn)(params)
        updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=fn)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(60):
        params, state = step(params, state)
    assert fn(params) < 1e-6
    assert pdt_optax.metrics(state).jumps > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # jinns warns of its own lines.
@pytest.mark.parametrize("jump", [*recipes.JUMPS, "solve, residuals"])
def test_jinns_trains_as_a_loop_by_hand(jump):
    way, _, by_residuals = jump.partition(", ")
    params, loss, data = poisson()
    jump = pdt_optax.Solve(history=16) if by_residuals else recipes.JUMPS[way]
    tx = optax.chain(optax.adam(0.01), pdt_optax.pdt(10, jump))
    problem = {"n_iter": 200, "init_params": params, "loss": loss, "data": data, "verbose": False}
    names = {"jinns": jinns, "jax": jax, "jnp": jnp, "tx": tx, "problem": problem}
    code = recipes.BLOCKS[HEADINGS[0]]
    if way == "extrapolate":
        code = code.replace('{"value_fn": callback_value} | held', "None")
    if by_residuals:
        value, residual = '"value_fn": callback_value', '"residual_fn": callback_residuals'
        code = recipes.BLOCKS[HEADINGS[1]] + code.replace(value, residual)
    exec(code, names)
    losses, by_hand = names["losses"], loss_by_hand(data)
    leaves, steps = jax.tree.leaves(params.nn_params), 15 if way == "solve" else 35  # One jump.
    found, state = recipes.by_hand(tx, by_hand, leaves, steps, way == "extrapolate")
    assert pdt_optax.metrics(state).predictions == 1
    assert pdt_optax.metrics(names["state"]).predictions == PREDICTIONS[way]
    np.testing.assert_allclose(losses[0], by_hand(leaves), rtol=1e-4)
    np.testing.assert_allclose(losses[steps], by_hand(found), rtol=1e-2)
    if by_residuals:
        alone, _ = recipes.by_hand(optax.adam(0.01), by_hand, leaves, 200, is_blind=True)
        assert losses[-1] < by_hand(alone) / 2
