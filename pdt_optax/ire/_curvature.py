"""Estimators of the diagonal of the curvature, for :func:`pdt_optax.ire.scale_by_ire`.

An estimator is an :class:`optax.GradientTransformationExtraArgs` whose ``update``
returns the diagonal instead of updates, as in :func:`optax.contrib.sophia`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pdt_optax import _leaves
from pdt_optax._checks import as_int, check_key, check_passed

ApplyFn = Callable[[Any, Any], jax.Array]


class SampledCurvatureState(NamedTuple):
    """State of :func:`sampled_label_fisher` and :func:`gauss_newton`.

    Attributes:
      estimates: int32, estimates made so far; folded into the random key.
    """

    estimates: jax.Array


def sampled_label_fisher(
    apply_fn: ApplyFn, key: jax.Array, *, num_chunks: int = 16
) -> optax.GradientTransformationExtraArgs:
    r"""Estimates the diagonal of the Fisher information of a softmax classifier.

    It equals the Gauss-Newton diagonal of the mean cross-entropy if labels are drawn
    from the model's own predictions, :math:`\hat y_i \sim \mathrm{softmax}(z_i)`:

    .. math::
      h = \frac{1}{N} \sum_{c=1}^{m} \Big( \sum_{i \in c}
        \nabla_\theta\, \mathrm{CE}(z_i, \hat y_i) \Big)^2

    over the :math:`N` examples of a batch, split into :math:`m` chunks. Each
    square is about :math:`h \chi^2_1` however large its chunk, so the relative
    standard deviation is :math:`\sqrt{2/m}`. The chunks run one after the other, and all
    together cost a forward and a backward pass over the batch, whatever their number.

    Args:
      apply_fn: ``(params, inputs) -> logits`` of shape ``(..., classes)``, each
        leading index an example (in a language model a token). Neither dropout nor
        batch statistics that change with it.
      key: random key.
      num_chunks: :math:`m`; a smaller batch is split into its single rows.

    Returns:
      A :class:`optax.GradientTransformationExtraArgs` whose ``update`` needs
      ``params`` and ``inputs``, a tree of arrays with the batch as first axis, and
      returns a tree like the parameters, in float32.

    Raises:
      ValueError: if `num_chunks` is not an int of at least 1 or `key` no random key; from
        ``update`` if ``inputs`` is missing, its first axis is not a multiple of
        `num_chunks`, or the logits have another shape or fewer than two classes.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> import pdt_optax
      >>> apply_fn = lambda params, inputs: inputs @ params
      >>> fisher = pdt_optax.ire.sampled_label_fisher(apply_fn, jax.random.key(0))
      >>> params = jnp.zeros((2, 3))
      >>> inputs = jnp.tile(jnp.array([[1., 10.]]), (64, 1))
      >>> diagonal, _ = fisher.update(params, fisher.init(params), params, inputs=inputs)
      >>> print((diagonal[1] / diagonal[0]).round())
      [100. 100. 100.]

    References:
      Liu et al., `Sophia: A Scalable Stochastic Second-order Optimizer for
      Language Model Pre-training <https://arxiv.org/abs/2305.14342>`_, 2023

      Kunstner et al., `Limitations of the Empirical Fisher Approximation
      <https://arxiv.org/abs/1905.12558>`_, 2019
    """

    def draw(key, logits):
        if logits.shape[-1] < 2:
            raise ValueError(
                "`apply_fn` must return logits of two or more classes, got shape "
                f"{logits.shape}: give a single logit a second one of zeros."
            )
        labels = jax.random.categorical(key, logits)
        return jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[-1])

    return _sampled(apply_fn, draw, key, num_chunks)


def gauss_newton(
    apply_fn: ApplyFn, key: jax.Array, *, num_chunks: int = 16
) -> optax.GradientTransformationExtraArgs:
    r"""Estimates the Gauss-Newton diagonal of half the squared error.

    Of the mean over the :math:`N` examples of :math:`\frac12 \|z_i - y_i\|^2`, with
    random signs :math:`\varepsilon` and the Jacobians :math:`J_i` of the outputs:

    .. math::
      h = \frac{1}{N} \sum_{c=1}^{m} \Big( \sum_{i \in c} J_i^T \varepsilon_i \Big)^2

    Noise and cost are those of :func:`sampled_label_fisher`.

    Args:
      apply_fn: ``(params, inputs) -> outputs`` of shape ``(..., outputs)``, each
        leading index an example.
      key: random key.
      num_chunks: :math:`m`; a smaller batch is split into its single rows.

    Returns:
      A :class:`optax.GradientTransformationExtraArgs` like that of
      :func:`sampled_label_fisher`.

    Raises:
      ValueError: like :func:`sampled_label_fisher`.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> import pdt_optax
      >>> apply_fn = lambda params, inputs: inputs @ params
      >>> curvature = pdt_optax.ire.gauss_newton(apply_fn, jax.random.key(0))
      >>> params, inputs = jnp.zeros((2, 1)), jnp.diag(jnp.array([1., 10.]))
      >>> diagonal, _ = curvature.update(params, curvature.init(params), params, inputs=inputs)
      >>> print(diagonal)
      [[ 0.5]
       [50. ]]

    References:
      Bekas et al., `An estimator for the diagonal of a matrix
      <https://doi.org/10.1016/j.apnum.2007.01.003>`_, 2007
    """

    def draw(key, outputs):
        return jax.random.rademacher(key, outputs.shape, outputs.dtype)

    return _sampled(apply_fn, draw, key, num_chunks)


def given_curvature() -> optax.GradientTransformationExtraArgs:
    """Takes the curvature that the caller passes to ``update``.

    Returns:
      A :class:`optax.GradientTransformationExtraArgs` whose ``update`` needs
      ``curvature``, a tree like the parameters. Needed are its values only at the
      updates at which :func:`pdt_optax.ire.scale_by_ire` makes a new mask.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> import pdt_optax
      >>> tx = pdt_optax.ire.ire(
      ...     optax.sgd(1.0), 9.0, gamma=0.5, warmup_steps=0,
      ...     curvature_fn=pdt_optax.ire.given_curvature(),
      ... )
      >>> params = jnp.zeros(2)
      >>> updates, _ = tx.update(
      ...     jnp.ones(2), tx.init(params), params, curvature=jnp.array([3., 0.1])
      ... )
      >>> print(updates)
      [ -1. -10.]
    """

    def update_fn(updates, state, params=None, *, curvature: Any = None, **extra_args):
        del updates, params, extra_args
        check_passed("curvature", curvature, "params, curvature=tree")
        return curvature, state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update_fn)


def _sampled(
    apply_fn: ApplyFn, draw: Callable[[jax.Array, jax.Array], jax.Array], key: Any, num_chunks: int
) -> optax.GradientTransformationExtraArgs:
    """Squares of gradients along random cotangents of the outputs, averaged over chunks."""
    num_chunks = as_int("num_chunks", num_chunks, 1)
    check_key("key", key)

    def update_fn(updates, state, params=None, *, inputs=None, **extra_args):
        del updates, extra_args
        if params is None or inputs is None:
            raise ValueError(
                "`params` and `inputs` must be passed to `update`: tx.update(grads, state, params, "
                "inputs=batch_inputs); got None."
            )
        chunks = _chunks(inputs, num_chunks)
        floats = _leaves.FloatLeaves(params)
        weights = floats.of(params)

        def add_chunk(carry, chunk):
            total, key = carry
            key, draw_key = jax.random.split(key)

            def outputs_of(weights):
                return apply_fn(floats.replace(params, weights), chunk)

            outputs, pull_back = jax.vjp(outputs_of, weights)
            if outputs.ndim < 2:
                raise ValueError(
                    "`apply_fn` must return outputs of shape (..., outputs) for the examples of a "
                    f"batch, got {outputs.shape}."
                )
            cotangent = draw(draw_key, outputs.astype(jnp.float32)).astype(outputs.dtype)
            (gradients,) = pull_back(cotangent)
            squares = [jnp.square(gradient.astype(jnp.float32)) for gradient in gradients]
            examples = jnp.array(outputs.size // outputs.shape[-1], jnp.float32)
            return (list(map(jnp.add, total, squares)), key), examples

        total = [jnp.zeros_like(weight, jnp.float32) for weight in weights]
        draws = jax.random.fold_in(key, state.estimates)
        (total, _), examples = jax.lax.scan(add_chunk, (total, draws), chunks)
        mean = [squares / examples.sum() for squares in total]
        zeros = jax.tree.map(jnp.zeros_like, params)
        state = SampledCurvatureState(jnp.asarray(optax.safe_increment(state.estimates)))
        return floats.replace(zeros, mean), state

    return optax.GradientTransformationExtraArgs(
        lambda params: SampledCurvatureState(jnp.zeros([], jnp.int32)), update_fn
    )


def _chunks(inputs: Any, num_chunks: int) -> Any:
    """Every `num_chunks`-th row of each array: a chunk has rows from every shard of the batch."""
    sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(inputs)}
    size = next(iter(sizes), ())
    if len(sizes) != 1 or not size or not size[0]:
        raise ValueError(
            f"`inputs` must be arrays with the same first axis, not empty; got {sorted(sizes)}."
        )
    number = min(num_chunks, *size)
    if size[0] % number:
        raise ValueError(
            f"`inputs` must have a first axis that is a multiple of `num_chunks`, {num_chunks}; "
            f"got {size[0]}."
        )
    return jax.tree.map(
        lambda x: jnp.moveaxis(jnp.reshape(x, (-1, number, *jnp.shape(x)[1:])), 1, 0), inputs
    )
