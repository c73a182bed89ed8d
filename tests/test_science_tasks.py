"""Each reference solves its equation, each operator vanishes on an exact solution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.science import tasks
from experiments.science.tasks import allen_cahn, burgers, circuit, neural_ode, physics

TINY = {
    **{name: {"width": 4, "depth": 2} for name in tasks.PROBLEMS},
    "image": {"width": 4, "depth": 2, "resolution": 8, "batch_size": 16},
    "regression_tables": {"width": 4, "depth": 1, "batch_size": 16},
    "regression_synthetic": {"width": 4, "depth": 1, "examples": 30, "batch_size": 16},
    "neural_ode": {"width": 4, "depth": 1, "trajectories": 5, "steps": 3, "batch_size": 2},
    "circuit": {"qubits": 3, "layers": 2},
}
PI = np.pi


def tiny(name):
    return tasks.make(name, **TINY[name])


def pulse(x):
    return jnp.exp(-8 * (x - PI) ** 2 / PI**2)


EXACT = {
    "poisson": lambda x, y: jnp.sin(PI * x) * jnp.sin(2 * PI * y),
    "convection_20": lambda x, t: jnp.sin(x - 20 * t),
    "convection_40": lambda x, t: jnp.sin(x - 40 * t),
    "reaction": lambda x, t: 1 / (1 + (1 / pulse(x) - 1) * jnp.exp(-5 * t)),
    "wave": lambda x, t: (
        jnp.sin(PI * x) * jnp.cos(2 * PI * t) + jnp.sin(5 * PI * x) * jnp.cos(10 * PI * t) / 2
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_residuals_vanish_on_the_exact_solution(name):
    problem, exact = tasks.PROBLEMS[name](), EXACT[name]
    with jax.enable_x64(True):
        points = problem.sample(jax.random.key(3), jnp.dtype("float64"))
        residuals = problem.scaled(lambda p: exact(p[:, 0], p[:, 1]), points)
        x, t = (np.linspace(*ends, 7) for ends in zip(problem.low, problem.high, strict=True))
        expected = exact(x[None], t[:, None])
    for name, residual in residuals.items():
        assert np.abs(residual).max() < 2e-5 if name == "periodic" else 1e-12, name
    np.testing.assert_allclose(problem.solution(x, t), expected, atol=1e-13)


def test_operators_of_the_nonlinear_equations():
    """On u = x^2 t, whose derivatives are known."""
    u = lambda p: p[:, 0] ** 2 * p[:, 1]  # noqa: E731
    with jax.enable_x64(True):
        for name in ("burgers", "allen_cahn"):
            problem = tasks.PROBLEMS[name]()
            points = problem.sample(jax.random.key(1), jnp.dtype("float64"))
            x, t = np.asarray(points["interior"]).T
            residual = problem.residual(u, points)["interior"]
            if name == "burgers":
                expected = x**2 + x**2 * t * 2 * x * t - 0.01 / PI * 2 * t
            else:
                expected = x**2 - 1e-4 * 2 * t - 5 * (x**2 * t - x**6 * t**3)
            np.testing.assert_allclose(residual, expected, rtol=1e-9, atol=1e-12)


def test_burgers_front_is_as_steep_as_published():
    """Basdevant et al. (1986): the slope is -152.00516 at x = 0, t = 1.6037 / pi."""
    h = 1e-5
    ahead, behind = burgers.solution(np.array([h, -h]), np.array([1.6037 / PI]))[0]
    assert (ahead - behind) / (2 * h) == pytest.approx(-152.00516, rel=1e-4)


def test_burgers_solves_its_equation():
    x, h, k = np.linspace(-0.9, 0.9, 13), 1e-4, 1e-4
    for t in (0.1, 0.4, 0.9):
        now, left, right = (burgers.solution(x + d, np.array([t]))[0] for d in (0, -h, h))
        before, after = (burgers.solution(x, np.array([t + d]))[0] for d in (-k, k))
        rate, along = (after - before) / (2 * k), (right - left) / (2 * h)
        twice = (right - 2 * now + left) / h**2
        np.testing.assert_allclose(rate + now * along, 0.01 / PI * twice, atol=2e-4)
    start = burgers.solution(x, np.array([0.0]))[0]
    np.testing.assert_allclose(start, -np.sin(PI * x), atol=1e-12)


def test_allen_cahn_is_of_fourth_order_and_converged():
    x, t = np.linspace(-1, 1, 41), np.linspace(0, 1, 11)
    best = allen_cahn.solution(x, t, steps=1600)
    coarse, fine = (
        np.abs(allen_cahn.solution(x, t, steps=steps) - best).max() for steps in (50, 100)
    )
    assert 10 < coarse / fine < 25
    np.testing.assert_allclose(allen_cahn.solution(x, t), best, atol=1e-7)
    np.testing.assert_allclose(allen_cahn.solution(x, t, modes=2048)[1:], best[1:], atol=1e-4)


def test_allen_cahn_solves_its_equation():
    h, t = 1e-3, np.linspace(0, 1, 1001)
    x = np.linspace(-0.8, 0.8, 9)
    now, left, right = (allen_cahn.solution(x + d, t)[[300, 700]] for d in (0, -h, h))
    rows = allen_cahn.solution(x, t)
    rate = (rows[[301, 701]] - rows[[299, 699]]) / (t[2] - t[0])
    expected = 1e-4 * (right - 2 * now + left) / h**2 + 5 * now - 5 * now**3
    np.testing.assert_allclose(rate, expected, atol=2e-3)


def test_spirals_lose_energy_as_they_must():
    """Along dy/dt = A y^3 the sum of y^4 / 4 falls at a rate of 0.1 times the sum of y^6."""
    times = np.linspace(0, 3, 3001)
    states = neural_ode.spiral(np.array([[1.5, 0.2], [-0.3, 1.1]]), times)
    energy = np.sum(states**4, -1) / 4
    rate = (energy[:, 2:] - energy[:, :-2]) / (times[2] - times[0])
    np.testing.assert_allclose(rate, -0.1 * np.sum(states[:, 1:-1] ** 6, -1), atol=1e-3)
    np.testing.assert_allclose(states[:, 0], [[1.5, 0.2], [-0.3, 1.1]])


def test_a_linear_network_is_integrated_to_fifth_order():
    """dy/dt = y W turns the plane: the solution is a rotation."""
    with jax.enable_x64(True):
        layers = [{"w": jnp.array([[0.0, 1.0], [-1.0, 0.0]]), "b": jnp.zeros(2)}]
        starts = jnp.array([[1.0, 0.0], [0.0, 2.0]])
        states = neural_ode.integrate_network(layers, starts, jnp.linspace(0.0, 1.0, 11))
    times = np.linspace(0, 1, 11)
    turned = np.stack([np.cos(times), np.sin(times)], -1)
    np.testing.assert_allclose(states[0], turned, atol=1e-8)
    np.testing.assert_allclose(states[1], 2 * turned[:, ::-1] * [-1, 1], atol=2e-8)


@pytest.mark.parametrize("field", [0.5, 1.0])
def test_ground_energy_is_that_of_free_fermions(field):
    """Pfeuty (1970): minus the sum of the energies of all modes."""
    modes = (2 * np.arange(6) + 1) * PI / 6
    exact = -np.sum(np.sqrt(1 + field**2 - 2 * field * np.cos(modes)))
    values = np.linalg.eigvalsh(circuit.hamiltonian(6, field).toarray())
    assert values[0] == pytest.approx(exact, abs=1e-10)
    task = circuit.task(qubits=6, layers=1, field=field)
    idle = {"angles": jnp.zeros((1, 6))}
    assert task.value(idle, ()) == pytest.approx(-6 - exact, abs=1e-5)


def test_circuit_is_a_product_of_matrices():
    angles = np.random.default_rng(0).normal(size=(2, 3))
    amplitudes = np.eye(8)[0]
    for layer in angles:
        for qubit, angle in enumerate(layer):
            c, s = np.cos(angle / 2), np.sin(angle / 2)
            parts = [np.eye(2)] * 3
            parts[qubit] = np.array([[c, -s], [s, c]])
            amplitudes = np.kron(np.kron(parts[0], parts[1]), parts[2]) @ amplitudes
        for a, b in ((0, 1), (1, 2), (2, 0)):
            both = [(n >> (2 - a)) & (n >> (2 - b)) & 1 for n in range(8)]
            amplitudes = np.where(both, -amplitudes, amplitudes)
    state = circuit.state(jnp.asarray(angles, jnp.float32))
    np.testing.assert_allclose(np.ravel(state), amplitudes, atol=1e-6)
    energy = amplitudes @ circuit.hamiltonian(3, 0.7) @ amplitudes
    assert circuit.expectation(state, 0.7) == pytest.approx(energy, abs=1e-5)


SLOW = {"convection_40", "wave", "burgers", "allen_cahn", "neural_ode"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in tasks.TASKS],
)
def test_a_task_can_be_trained(name):
    task = tiny(name)
    first, second = (task.init(jax.random.key(seed)) for seed in (0, 1))
    assert any(
        np.any(a != b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )
    value, grads = jax.jit(jax.value_and_grad(task.value))(first, task.points)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(grads)) > 0
    assert float(task.error(first)) > 0
    if task.residuals is not None:
        residuals = jax.tree.leaves(task.residuals(first, task.points))
        total = sum(np.sum(np.square(r, dtype=np.float64)) for r in residuals)
        assert float(value) == pytest.approx(total, rel=1e-5)
    fresh = [task.sample(jax.random.key(seed)) for seed in (0, 1)]
    assert jax.tree.structure(fresh[0]) == jax.tree.structure(task.points)
    if name != "circuit":
        assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, fresh), strict=True))


@pytest.mark.parametrize("name", ["poisson", pytest.param("neural_ode", marks=pytest.mark.slow)])
def test_forward_and_reverse_mode_agree(name):
    """The loss changes by 2 r J v along v."""
    task = tiny(name)
    assert task.residuals is not None
    params, direction = (task.init(jax.random.key(seed)) for seed in (0, 1))
    residuals, change = jax.jvp(
        functools.partial(task.residuals, points=task.points), (params,), (direction,)
    )
    forward = 2 * sum(map(jnp.vdot, jax.tree.leaves(residuals), jax.tree.leaves(change)))
    grads = jax.grad(task.value)(params, task.points)
    reverse = sum(map(jnp.vdot, jax.tree.leaves(grads), jax.tree.leaves(direction)))
    assert float(forward) == pytest.approx(float(reverse), rel=1e-4)


@pytest.mark.parametrize("name", ["poisson", "image", "regression_tables"])
def test_double_precision_throughout(name):
    with jax.enable_x64(True):
        task = tasks.make(name, dtype="float64", **TINY[name])
        assert task.residuals is not None
        params = task.init(jax.random.key(0))
        leaves = jax.tree.leaves((params, task.points, task.residuals(params, task.points)))
        assert {leaf.dtype.name for leaf in leaves} == {"float64"}
        assert task.error(params).dtype == "float64"


def test_points_lie_where_their_names_say():
    problem = tasks.PROBLEMS["burgers"]()
    points = problem.sample(jax.random.key(0), jnp.dtype("float32"))
    assert set(np.asarray(points["left"])[:, 0]) == {-1}
    assert set(np.asarray(points["right"])[:, 0]) == {1}
    assert set(np.asarray(points["bottom"])[:, 1]) == {0}
    np.testing.assert_array_equal(points["left"][:, 1], points["right"][:, 1])
    low, high = points["interior"].min(0), points["interior"].max(0)
    np.testing.assert_allclose(low, [-1, 0], atol=0.01)
    np.testing.assert_allclose(high, [1, 1], atol=0.01)


def test_fixed_points_of_edges_are_evenly_spaced():
    """As Krishnapriyan et al. (2021) have them: random ones leave gaps and wrong solutions."""
    points = tasks.make("convection_20").points
    np.testing.assert_allclose(points["left"], [(0, n / 50) for n in range(51)], atol=1e-6)
    np.testing.assert_allclose(points["right"][:, 1], points["left"][:, 1])
    x = np.linspace(0, 2 * np.pi, 100)
    np.testing.assert_allclose(points["bottom"], np.stack([x, 0 * x], 1), rtol=1e-6)


def test_the_error_is_that_of_the_picture():
    task = tiny("wave")
    params = task.init(jax.random.key(0))
    predicted = np.asarray(task.field.predict(params), np.float64)
    wanted = task.field.reference
    assert predicted.shape == wanted.shape == (physics.GRID, physics.GRID)
    expected = np.linalg.norm(predicted - wanted) / np.linalg.norm(wanted)
    assert float(task.error(params)) == pytest.approx(expected, rel=1e-5)


def test_columns_are_standard_and_examples_held_out():
    task = tasks.make("regression_tables", **TINY["regression_tables"])
    for columns in task.points.values():
        np.testing.assert_allclose(columns.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(columns.std(0), 1, atol=1e-5)
    assert len(task.points["inputs"]) == 427
    assert len(tiny("image").points["places"]) == 48


@pytest.mark.parametrize(("size", "weights"), [("small", 1e3), ("medium", 1e5), ("large", 1e6)])
def test_sizes(size, weights):
    assert tasks.make("poisson", size).weights() == pytest.approx(weights, rel=0.2)


def test_what_does_not_exist_is_told():
    with pytest.raises(ValueError, match="jax_enable_x64"):
        tasks.make("poisson", dtype="float64")
    with pytest.raises(ValueError, match="circuit has no size but `own`, got 'large'"):
        tasks.make("circuit", "large")
