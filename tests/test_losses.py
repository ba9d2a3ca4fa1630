"""Each loss against a value worked out another way."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from ssgn import losses

SQUARED = [losses.reconstruction, losses.coarse, losses.regression, losses.semantic]


def random(*shapes):
    gen = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=gen) for shape in shapes]


@pytest.mark.parametrize("loss", SQUARED)
def test_squared_errors_are_means_over_all_entries(loss):
    a = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    b = torch.tensor([[1.0, 0.0], [3.0, -1.0]])
    assert loss(a, b).item() == pytest.approx((0 + 4 + 9 + 0) / 4)
    assert loss(a, a).item() == 0


def test_kl_equals_that_of_torch_distributions_per_latent_dimension():
    mu, log_var = random((5, 7), (5, 7))
    ours = Independent(Normal(mu, (log_var / 2).exp()), 1)
    prior = Independent(Normal(torch.zeros(5, 7), torch.ones(5, 7)), 1)
    want = kl_divergence(ours, prior).mean() / 7
    assert losses.kl(mu, log_var).item() == pytest.approx(want.item(), rel=1e-5)
    assert losses.kl(torch.zeros(2, 3), torch.zeros(2, 3)).item() == 0


def test_classification_is_log_of_the_classes_for_a_guess_and_zero_for_certainty():
    labels = torch.tensor([0, 2])
    assert losses.classification(torch.zeros(2, 8), labels).item() == pytest.approx(math.log(8))
    sure = torch.full((2, 8), -50.0)
    sure[0, 0] = sure[1, 2] = 50.0
    assert losses.classification(sure, labels).item() == pytest.approx(0, abs=1e-6)
    assert losses.classification(sure, torch.tensor([1, 0])).item() > 99


def test_contrastive_equals_a_double_loop():
    a, b = random((4, 5), (6, 5))
    a_labels, b_labels = torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 1, 0, 0])
    each = []
    for row, label in zip(a, a_labels, strict=True):
        e = [math.exp(torch.cosine_similarity(row, other, dim=0).item() / 0.2) for other in b]
        own = [v for v, other in zip(e, b_labels, strict=True) if other == label]
        each.append(sum(-math.log(v / sum(e)) for v in own) / len(own))
    got = losses.contrastive(a, b, a_labels, b_labels, 0.2).item()
    assert got == pytest.approx(sum(each) / 4, rel=1e-5)


@pytest.mark.parametrize("loss", [*SQUARED, losses.kl])
def test_repeating_every_row_does_not_change_a_loss(loss):
    a, b = random((3, 4), (3, 4))
    twice = loss(a.repeat(2, 1), b.repeat(2, 1))
    assert twice.item() == pytest.approx(loss(a, b).item(), rel=1e-6)


@pytest.mark.parametrize("loss", [*SQUARED, losses.kl])
@pytest.mark.parametrize("other", [(4,), (1, 4), (3, 1), (2, 4)])
def test_shapes_that_would_broadcast_are_refused(loss, other):
    with pytest.raises(ValueError, match=r"\(3, 4\)"):
        loss(torch.zeros(3, 4), torch.zeros(other))


@pytest.mark.parametrize("loss", [*SQUARED, losses.kl])
def test_integers_are_refused(loss):
    with pytest.raises(ValueError, match="int64"):
        loss(torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2, 2, dtype=torch.int64))
