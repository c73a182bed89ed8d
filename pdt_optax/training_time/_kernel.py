"""The empirical neural tangent kernel and its three forms."""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pdt_optax._checks import is_int
from pdt_optax.training_time._gradients import ApplyFn, Leaves, Network, Sketch

Form = Literal["exact", "class_block", "trace"]
FORMS: tuple[Form, ...] = ("exact", "class_block", "trace")
_KERNEL_BYTES = 2**32
GRADIENT_BYTES = 2**30
_PRODUCT = {2: "ij,ja->ia", 3: "aij,ja->ia", 4: "iajb,jb->ia"}


class EmpiricalKernel(NamedTuple):
    r"""Inner products of the gradients of a network's outputs.

    Made by :func:`pdt_optax.training_time.empirical_kernel`. For ``N`` examples and ``C`` outputs
    the whole kernel is :math:`\Theta_{ia,jb} = \langle \nabla f_a(x_i), \nabla f_b(x_j)
    \rangle`.

    Attributes:
      matrix: float64, ``(N, C, N, C)`` (exact), ``(C, N, N)`` (the blocks of equal
        outputs, the others zero) or ``(N, N)`` (one block for every output).
      sample_gradients: gradients of single examples that were computed.
      projection_dim: dimension the gradients were projected to, None if they were not.
    """

    matrix: np.ndarray
    sample_gradients: int = 0
    projection_dim: int | None = None

    @property
    def form(self) -> Form:
        """Which of the three forms it is."""
        forms: dict[int, Form] = {4: "exact", 3: "class_block", 2: "trace"}
        return forms[self.matrix.ndim]

    def __matmul__(self, cotangents: np.ndarray) -> np.ndarray:
        """The kernel times ``(N, C)``; shape ``(N, C)``."""
        return np.einsum(_PRODUCT[self.matrix.ndim], self.matrix, cotangents, optimize=True)

    def eigenvalues(self) -> np.ndarray:
        """Eigenvalues without the negative ones that rounding gives; ``(NC,)`` or ``(C, N)``.

        In the trace form ``(N,)``, each counting for every output.
        """
        return np.maximum(np.linalg.eigvalsh(self._blocks()), 0.0)

    def modes(self, *values: np.ndarray) -> tuple[np.ndarray, ...]:
        """Eigenvalues, and values ``(N, C)`` in the eigenvectors; each ``(NC,)``."""
        eigenvalues, vectors = np.linalg.eigh(self._blocks())
        eigenvalues = np.maximum(eigenvalues, 0.0)
        if self.matrix.ndim == 4:
            return eigenvalues, *(vectors.T @ value.ravel() for value in values)
        coordinates = [np.swapaxes(vectors, -1, -2) @ value.T[..., None] for value in values]
        shape = np.shape(values[0].T)
        return (
            np.broadcast_to(eigenvalues, shape).ravel(),
            *(value.reshape(-1) for value in coordinates),
        )

    def _blocks(self) -> np.ndarray:
        if self.matrix.ndim == 4:
            size = math.prod(self.matrix.shape[:2])
            return self.matrix.reshape(size, size)
        return self.matrix


def empirical_kernel(
    apply_fn: ApplyFn,
    params: Any,
    inputs: Any,
    *,
    kernel: Form = "exact",
    num_cotangents: int = 2,
    projection_dim: int | None = None,
    key: jax.Array | None = None,
) -> EmpiricalKernel:
    r"""The empirical neural tangent kernel of a network at its parameters.

    Examples are spread over the local devices, their gradients fetched a part at a time
    and multiplied on the host in float64: float32 would drown the small eigenvalues, which
    set the time to a low loss. The gradients of all outputs are never in memory at once;
    where a GiB does not hold those of all examples, some are computed again.

    Args:
      apply_fn: function ``(params, x) -> (n, C)`` of ``x`` of shape ``(n, ...)`` that treats
        every example by itself.
      params: tree of parameters; leaves that are not floating-point are constants.
      inputs: examples, ``(N, ...)``.
      kernel: ``'exact'`` all of it, ``C`` gradients an example; ``'class_block'`` only its
        blocks of equal outputs, at the same cost; ``'trace'`` the mean block,
        :math:`K = \frac{1}{ZC} \sum_s G_s G_s^\top` with the gradients :math:`G_s` of the
        outputs weighted by signs :math:`z_s \in \{\pm 1\}^C`, ``Z`` gradients an example.
      num_cotangents: ``Z``, of the trace form; from ``C`` on the mean block is exact.
      projection_dim: dimension :math:`D'` to which a random map takes the gradients; it keeps
        inner products in expectation. The rank of a block is at most :math:`D'`: modes
        beyond never decay, so :math:`D' \ge 2N` is advised. Without, gradients are kept whole.
      key: of the signs and of the projection; by default ``jax.random.key(0)``.

    Returns:
      The kernel.

    Raises:
      ValueError: for an argument out of range, outputs that are not ``(N, C)`` or not
        finite, or a kernel of more than 4 GiB.

    Examples:
      >>> import numpy as np
      >>> import pdt_optax
      >>> inputs = np.array([[1., 2.], [0., 1.]], np.float32)
      >>> linear = lambda w, x: x @ w
      >>> kernel = pdt_optax.training_time.empirical_kernel(linear, np.zeros((2, 1)), inputs)
      >>> kernel.matrix[:, 0, :, 0]
      array([[5., 2.],
             [2., 1.]])

    References:
      Jacot et al., `Neural Tangent Kernel: Convergence and Generalization in Neural Networks
      <https://arxiv.org/abs/1806.07572>`_, 2018
    """
    check_kernel_arguments(kernel, num_cotangents, projection_dim)
    network = Network(apply_fn, params, np.asarray(inputs))
    if not len(network.inputs):
        raise ValueError("`inputs` must hold one or more examples, got none.")
    outputs = check_outputs(network)
    return compute(
        network,
        outputs.shape[1],
        form=kernel,
        num_cotangents=num_cotangents,
        projection_dim=projection_dim,
        key=jax.random.key(0) if key is None else key,
    )


def check_kernel_arguments(form: str, num_cotangents: int, projection_dim: int | None) -> None:
    """Raises for kernel arguments out of range."""
    if form not in FORMS:
        raise ValueError(f"`kernel` must be one of {', '.join(map(repr, FORMS))}; got {form!r}.")
    if not is_int(num_cotangents, 1):
        raise ValueError(f"`num_cotangents` must be an int of at least 1, got {num_cotangents!r}.")
    if projection_dim is not None and not is_int(projection_dim, 1):
        raise ValueError(
            f"`projection_dim` must be None or an int of at least 1, got {projection_dim!r}."
        )


def check_outputs(network: Network) -> np.ndarray:
    """Outputs of all examples; raises unless they are finite, ``(N, C)`` and independent."""
    for leaf in network.leaves:
        if not jnp.all(jnp.isfinite(leaf)):
            raise ValueError("`params` must be finite, got nan or inf.")
    outputs = network.outputs()
    if outputs.ndim != 2 or len(outputs) != len(network.inputs):
        raise ValueError(
            "`apply_fn` must give outputs of shape (examples, C), got "
            f"{outputs.shape} for {len(network.inputs)} examples."
        )
    if not np.all(np.isfinite(outputs)):
        raise ValueError("outputs of `apply_fn` must be finite, got nan or inf.")
    alone = network.alone()
    if not np.allclose(alone, outputs[:1], rtol=0.01, atol=0.01 * np.abs(outputs).max()):
        raise ValueError(
            "`apply_fn` must treat every example by itself and without noise (batch norm and "
            "dropout in inference mode): the first example gives "
            f"{alone[0]} alone and {outputs[0]} among others."
        )
    return outputs


def compute(
    network: Network,
    num_outputs: int,
    *,
    form: Form,
    num_cotangents: int,
    projection_dim: int | None,
    key: jax.Array,
) -> EmpiricalKernel:
    """The kernel of a network, its arguments checked."""
    size = len(network.inputs)
    shapes = {
        "exact": (size, num_outputs, size, num_outputs),
        "class_block": (num_outputs, size, size),
        "trace": (size, size),
    }
    needed = 8 * math.prod(shapes[form])
    if needed > _KERNEL_BYTES:
        cheaper = "`max_samples` or fewer inputs" if form == "trace" else "a cheaper `kernel`"
        raise ValueError(
            f"`kernel` {form!r} of {size} examples and {num_outputs} outputs takes {needed:,} "
            f"bytes, more than {_KERNEL_BYTES:,}: use {cheaper}."
        )
    sign_key, sketch_key = jax.random.split(key)
    if form == "trace" and num_cotangents < num_outputs:
        signs = jax.random.rademacher(sign_key, (num_cotangents, num_outputs))
        cotangents = np.asarray(signs, np.float32) / math.sqrt(num_cotangents * num_outputs)
    else:
        cotangents = np.eye(num_outputs)
        if form == "trace":
            cotangents = cotangents / math.sqrt(num_outputs)

    if projection_dim is None:
        sketch, width = _everything, network.size
    else:
        sketch, width = _random_projection(network, projection_dim, sketch_key), projection_dim
    gradients = network.sample_gradients(cotangents, sketch)
    matrix = np.zeros(shapes[form])
    # Two blocks of gradients are held, of one leaf in float64 besides.
    block = int(max(GRADIENT_BYTES // (16 * len(cotangents) * width), 1))
    computed = 0
    for start in range(0, size, block):
        rows = slice(start, min(start + block, size))
        left = gradients(rows.start, rows.stop)
        computed += rows.stop - rows.start
        _set_block(matrix, rows, rows, left, left)
        for other in range(rows.stop, size, block):
            columns = slice(other, min(other + block, size))
            _set_block(matrix, rows, columns, left, gradients(columns.start, columns.stop))
            computed += columns.stop - columns.start
    return EmpiricalKernel(matrix, computed * len(cotangents), projection_dim)


def _set_block(
    matrix: np.ndarray,
    rows: slice,
    columns: slice,
    left: list[np.ndarray],
    right: list[np.ndarray],
) -> None:
    """Sets the block of these examples and its mirror image, a leaf at a time."""
    for a, b in zip(left, right, strict=True):
        x = a.astype(np.float64)
        y = x if a is b else b.astype(np.float64)
        if matrix.ndim == 4:
            (n, c, _), m = x.shape, len(y)
            x, y = x.reshape(n * c, -1), y.reshape(m * c, -1)
            matrix[rows, :, columns] += (x @ y.T).reshape(n, c, m, c)
        elif matrix.ndim == 3:
            for k in range(len(matrix)):
                matrix[k, rows, columns] += x[:, k] @ y[:, k].T
        else:
            matrix[rows, columns] += x.reshape(len(x), -1) @ y.reshape(len(y), -1).T
    if rows != columns:
        if matrix.ndim == 4:
            matrix[columns, :, rows] = matrix[rows, :, columns].transpose(2, 3, 0, 1)
        else:
            matrix[..., columns, rows] = np.swapaxes(matrix[..., rows, columns], -1, -2)


def _everything(leaves: Leaves) -> Leaves:
    return leaves


def _random_projection(network: Network, dim: int, key: jax.Array) -> Sketch:
    """Adds up coordinates with random signs in random buckets: inner products in expectation.

    The coordinates of a leaf are cut into rows of `dim`, each is turned by a random shift and
    multiplied by random signs, and the rows are added: a count sketch (Charikar et al. 2002)
    whose buckets are filled evenly, at the cost of one addition a coordinate.
    """
    signs, shifts = [], []
    for leaf, leaf_key in zip(
        network.leaves, jax.random.split(key, max(len(network.leaves), 1)), strict=False
    ):
        rows = -(-leaf.size // dim)
        sign_key, shift_key = jax.random.split(leaf_key)
        signs.append(jax.random.rademacher(sign_key, (rows, dim), jnp.int8))
        shifts.append(jax.random.randint(shift_key, (rows,), 0, dim))

    def project(leaves: Leaves) -> Leaves:
        total = jnp.zeros((*leaves[0].shape[:2], dim), leaves[0].dtype)
        for leaf, leaf_signs, leaf_shifts in zip(leaves, signs, shifts, strict=True):
            rows = len(leaf_signs)
            padded = jnp.pad(leaf, ((0, 0), (0, 0), (0, rows * dim - leaf.shape[-1])))
            cut = jnp.moveaxis(padded.reshape(*leaf.shape[:2], rows, dim), 2, 0)

            def add(total, row):
                values, row_signs, shift = row
                turned = jnp.roll(
                    values * row_signs.astype(values.dtype)[None, None], shift, axis=-1
                )
                return total + turned, None

            total, _ = jax.lax.scan(add, total, (cut, leaf_signs, leaf_shifts))
        return [total]

    return project
