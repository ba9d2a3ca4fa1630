"""The terms that SSGN is trained on: pure functions of a batch, each a mean over its rows.

Their weights are fields of :class:`~ssgn.config.SSGNConfig`; a weight of 0 switches a term off. The
chapter *The model* explains them.
"""

import torch.nn.functional as F
from torch import Tensor


def reconstruction(f: Tensor, v: Tensor) -> Tensor:
    """Mean squared error of synthesized against real photo features [C].

    Args:
        f, v: ``[B, D]``, standardized.
    """
    return _mse(f, v)


def coarse(c: Tensor, class_mean: Tensor) -> Tensor:
    """Mean squared error of the coarse features against their class's mean photo features.

    The abstract says that the coarse features are category-specific [A]; the class mean as their
    target is ours [O].

    Args:
        c, class_mean: ``[B, D]``, standardized.
    """
    return _mse(c, class_mean)


def kl(mu: Tensor, log_var: Tensor) -> Tensor:
    """KL divergence of N(mu, exp(log_var)) from N(0, I), in nats per latent dimension [C].

    Args:
        mu, log_var: ``[B, Z]``.
    """
    _same_shape(mu, log_var)
    return 0.5 * (mu.square() + log_var.exp() - 1 - log_var).mean()


def regression(s_hat: Tensor, s: Tensor) -> Tensor:
    """Mean squared error of regressed against true word vectors: keeps semantics in f [A].

    Args:
        s_hat, s: ``[B, S]``, standardized.
    """
    return _mse(s_hat, s)


def classification(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over the training classes, in nats: keeps f discriminative [A].

    Args:
        logits: ``[B, C]``.
        labels: int64 ``[B]``, in 0..C-1.
    """
    return F.cross_entropy(logits, labels)


def contrastive(
    a: Tensor, b: Tensor, a_labels: Tensor, b_labels: Tensor, temperature: float
) -> Tensor:
    """Cross-entropy, in nats, of finding a row's own class among the rows of ``b`` by cosine [O].

    The supervised contrastive loss: for each row of ``a`` the mean of -log softmax(cosine /
    temperature) over the rows of ``b`` of its class. It asks for exactly what retrieval by cosine
    needs.

    Args:
        a: ``[A, D]``.
        b: ``[B, D]``.
        a_labels, b_labels: int64 ``[A]`` and ``[B]``; every class of ``a`` must occur in ``b``.
        temperature: > 0; the smaller, the more the hardest rows count.
    """
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    log_p = (a @ b.T / temperature).log_softmax(1)
    own = a_labels[:, None] == b_labels
    return -((log_p * own).sum(1) / own.sum(1)).mean()


def semantic(s_hat: Tensor, s: Tensor) -> Tensor:
    """Mean squared error of the word vectors that the semantic head reads off a sketch [O].

    Args:
        s_hat, s: ``[B, S]``, standardized.
    """
    return _mse(s_hat, s)


def _mse(a: Tensor, b: Tensor) -> Tensor:
    _same_shape(a, b)
    return F.mse_loss(a, b)


def _same_shape(a: Tensor, b: Tensor) -> None:
    # Broadcasting would turn a mistake into a plausible number.
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {tuple(a.shape)} and {tuple(b.shape)}")
    if not a.is_floating_point():
        raise ValueError(f"floating-point tensors are needed, got {a.dtype}")
