"""The losses of SSGN: pure functions of a batch, each a scalar tensor, the mean over the rows.

Fields of :class:`~ssgn.config.SSGNConfig` weight them; a weight of 0 switches a loss off. The
chapter *The model* explains each of them.
"""

import torch.nn.functional as F
from torch import Tensor


def reconstruction(f: Tensor, v: Tensor) -> Tensor:
    """Compute the mean squared error between synthesized and real photo features [C].

    The chapter *The model* explains it.

    Args:
        f, v: ``[B, D]``, synthesized and real, standardized.

    Raises:
        ValueError: shapes differ, or tensors are not floating-point.
    """
    return _mse(f, v)


def coarse(c: Tensor, class_mean: Tensor) -> Tensor:
    """Compute the mean squared error between coarse features and their class's mean photo features.

    The abstract calls coarse features category-specific [A]; the class mean as their target is our
    choice [O]. The chapter *The model* explains it.

    Args:
        c, class_mean: ``[B, D]``, standardized.

    Raises:
        ValueError: shapes differ, or tensors are not floating-point.
    """
    return _mse(c, class_mean)


def kl(mu: Tensor, log_var: Tensor) -> Tensor:
    """Compute the KL divergence of N(mu, exp(log_var)) from N(0, I) [C].

    It is in nats per dimension of z. The chapter *The model* explains it.

    Args:
        mu, log_var: ``[B, Z]``, mean and logarithm of the variance.

    Raises:
        ValueError: shapes differ, or tensors are not floating-point.
    """
    _check_shapes(mu, log_var)
    return 0.5 * (mu.square() + log_var.exp() - 1 - log_var).mean()


def regression(s_hat: Tensor, s: Tensor) -> Tensor:
    """Compute the mean squared error between word vectors regressed from f and the true ones [A].

    It keeps semantics in the synthesized features f. The chapter *The model* explains it.

    Args:
        s_hat, s: ``[B, S]``, regressed and true, standardized.

    Raises:
        ValueError: shapes differ, or tensors are not floating-point.
    """
    return _mse(s_hat, s)


def classification(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the cross-entropy over the training classes, in nats [A].

    It keeps the synthesized features f discriminative. The chapter *The model* explains it.

    Args:
        logits: ``[B, C]``.
        labels: int64 ``[B]``, in 0..C-1.
    """
    return F.cross_entropy(logits, labels)


def contrastive(
    a: Tensor, b: Tensor, a_labels: Tensor, b_labels: Tensor, temperature: float
) -> Tensor:
    """Compute the supervised contrastive loss of rows of ``a`` against rows of ``b``, in nats [O].

    For each row of ``a``, this is the mean of -log softmax(cosine / temperature) over the rows of
    ``b`` that have its class. It trains exactly what retrieval by cosine needs. The chapters *The
    model* and *What reproduces* explain it.

    Args:
        a: ``[A, D]``.
        b: ``[B, D]``.
        a_labels, b_labels: int64 ``[A]`` and ``[B]``; every class of ``a`` must occur in ``b``.
        temperature: > 0; a smaller one gives the hardest rows more weight.
    """
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    log_p = (a @ b.T / temperature).log_softmax(1)
    own = a_labels[:, None] == b_labels
    return -((log_p * own).sum(1) / own.sum(1)).mean()


def semantic(s_hat: Tensor, s: Tensor) -> Tensor:
    """Compute the mean squared error of the word vectors that the semantic head predicts [O].

    The chapter *The model* explains it.

    Args:
        s_hat, s: ``[B, S]``, predicted and true, standardized.

    Raises:
        ValueError: shapes differ, or tensors are not floating-point.
    """
    return _mse(s_hat, s)


def back(x_hat: Tensor, x: Tensor) -> Tensor:
    """Compute the mean squared error of sketch features that are predicted back from f [C].

    It keeps in f what tells one sketch from another. The chapter *The model* explains it.

    Args:
        x_hat, x: ``[B, D]``, predicted and true.

    Raises:
        ValueError: shapes differ, or tensors are not floating-point.
    """
    return _mse(x_hat, x)


def _mse(a: Tensor, b: Tensor) -> Tensor:
    _check_shapes(a, b)
    return F.mse_loss(a, b)


def _check_shapes(a: Tensor, b: Tensor) -> None:
    # Broadcasting would turn a mistake into a plausible number.
    if a.shape != b.shape:
        raise ValueError(
            f"a loss needs two tensors of one shape, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if not a.is_floating_point():
        raise ValueError(f"a loss needs floating-point tensors, got {a.dtype}")
