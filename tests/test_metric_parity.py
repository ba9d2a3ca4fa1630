"""What the metrics of every ranking obey, and by which names other libraries know them."""

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from test_metrics import by_definition
from torchmetrics.functional.retrieval import retrieval_average_precision, retrieval_precision

import ssgn
from ssgn.metrics import measure

settings.register_profile("ssgn", deadline=None, max_examples=100, derandomize=True)
settings.load_profile("ssgn")

NAMES = ("P@{}", "mAP@{}", "mAP@{}/min", "mAP@{}/k")
rankings = st.lists(st.booleans(), min_size=1, max_size=30).filter(any)
cut_offs = st.integers(1, 40)


def metrics_of(ranking, k):
    """All metrics of one ranking; those at k by their name without k."""
    got = measure(torch.tensor([ranking]), (k,))
    return {key.replace(f"@{k}", "@k"): value.item() for key, value in got.items()}


# What every ranking obeys -----------------------------------------------------------------


@given(rankings, cut_offs)
def test_metrics_follow_the_formulas_of_the_literature(ranking, k):
    """SEM-PCYC's, Pascal VOC's (SAKE and later) and CVAE's, written out in test_metrics."""
    want = by_definition([int(r) for r in ranking], k)
    assert metrics_of(ranking, k) == pytest.approx(want, abs=1e-12)


@given(rankings, cut_offs)
def test_metrics_are_shares(ranking, k):
    got = metrics_of(ranking, k)
    assert all(0 <= value <= 1 + 1e-12 for value in got.values())
    found = got["P@k"] * min(k, len(ranking))
    assert found == pytest.approx(round(found)) and round(found) == sum(ranking[:k])


@given(st.integers(1, 20), st.integers(0, 20), cut_offs)
def test_a_perfect_ranking_reaches_one_where_the_definition_allows(right, wrong, k):
    """Only division by min(k, R) or by the number found can reach 1 if k exceeds R."""
    got = metrics_of([True] * right + [False] * wrong, k)
    assert got["mAP@all"] == got["mAP@k"] == got["mAP@k/min"] == 1
    top = min(k, right + wrong)
    assert got["P@k"] == got["mAP@k/k"] == pytest.approx(min(right, top) / top)


@given(rankings, cut_offs)
def test_relations_between_the_definitions(ranking, k):
    got, slack = metrics_of(ranking, k), 1e-12
    # One sum, divided by k or by the number found: the ratio is the precision at k.
    assert got["mAP@k/k"] == pytest.approx(got["mAP@k"] * got["P@k"])
    # min(k, R) <= k, and interpolating can only raise a precision.
    assert got["mAP@k/k"] <= got["mAP@k/min"] + slack
    # No precision exceeds 1, so a sum of `found` of them, divided by k, cannot exceed found / k.
    assert got["mAP@k/k"] <= got["P@k"] + slack


def test_two_definitions_without_an_order():
    """÷ found ignores missing items; ÷ min counts them, but interpolates."""
    missing, late = metrics_of([True, False, True, True], 2), metrics_of([False, True], 2)
    assert missing["mAP@k"] == 1 and missing["mAP@k/min"] == 1 / 2
    assert late["mAP@k"] == late["mAP@k/min"] == 1 / 2
    rising = metrics_of([False, True, True, True], 4)
    assert rising["mAP@k"] < rising["mAP@k/min"] == 3 / 4


@given(rankings, st.data())
def test_moving_a_relevant_item_up_never_lowers_a_metric_but_one(ranking, data):
    places = [i for i in range(1, len(ranking)) if ranking[i] and not ranking[i - 1]]
    assume(places)
    i, k = data.draw(st.sampled_from(places)), data.draw(cut_offs)
    better = ranking.copy()
    better[i - 1], better[i] = True, False
    before, after = metrics_of(ranking, k), metrics_of(better, k)
    for key in ("mAP@all", "P@k", "mAP@k/min", "mAP@k/k"):
        assert after[key] >= before[key] - 1e-12, key
    assert after["mAP@all"] > before["mAP@all"]
    if i != k:  # the item does not enter the top k by moving up
        assert after["mAP@k"] >= before["mAP@k"] - 1e-12


def test_finding_more_can_lower_the_metric_divided_by_the_number_found():
    ranking = [True] + [False] * 9 + [True]
    better = [True] + [False] * 8 + [True, False]
    assert metrics_of(ranking, 10)["mAP@k"] == 1
    assert metrics_of(better, 10)["mAP@k"] == pytest.approx((1 + 2 / 10) / 2)


@given(rankings, st.lists(st.booleans(), max_size=10), cut_offs)
def test_items_after_k_count_only_in_the_number_of_relevant_items(ranking, tail, k):
    assume(k <= len(ranking))
    before, after = metrics_of(ranking, k), metrics_of(ranking + tail, k)
    for key in ("P@k", "mAP@k", "mAP@k/k"):
        assert before[key] == after[key], key
    if not any(tail):
        assert before == pytest.approx(after)


@given(rankings, st.integers(0, 20))
@example([True], 0)
def test_a_cut_off_beyond_the_gallery_takes_all_of_it(ranking, beyond):
    k = len(ranking) + beyond
    got = metrics_of(ranking, k)
    assert got["mAP@k"] == pytest.approx(got["mAP@all"])
    assert got["mAP@k/min"] >= got["mAP@all"] - 1e-12  # the same, interpolated
    assert got["P@k"] == sum(ranking) / len(ranking)


@given(rankings)
def test_all_definitions_agree_at_one(ranking):
    got = metrics_of(ranking, 1)
    assert {got[name.format("k")] for name in NAMES} == {float(ranking[0])}


# What does not change a metric ------------------------------------------------------------


@st.composite
def worlds(draw):
    """Queries, gallery, labels; continuous, so that two items practically never tie."""
    gen = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    n, items, classes = draw(st.integers(1, 6)), draw(st.integers(3, 40)), 3
    labels = torch.randint(classes, (n,), generator=gen), torch.arange(items) % classes
    q, g = torch.randn(n, 5, generator=gen), torch.randn(items, 5, generator=gen)
    return q, g, *labels, gen


@given(worlds())
def test_the_gallerys_order_does_not_matter_without_ties(world):
    q, g, q_labels, g_labels, gen = world
    shuffled = torch.randperm(len(g), generator=gen)
    whole = ssgn.evaluate(q, g, q_labels, g_labels, ks=(3,))
    assert ssgn.evaluate(q, g[shuffled], q_labels, g_labels[shuffled], ks=(3,)) == pytest.approx(
        whole
    )


@given(worlds())
def test_the_metrics_of_a_query_do_not_depend_on_the_others(world):
    q, g, q_labels, g_labels, gen = world
    whole = ssgn.evaluate(q, g, q_labels, g_labels, ks=(3,), per_query=True)
    order = torch.randperm(len(q), generator=gen)
    mixed = ssgn.evaluate(q[order], g, q_labels[order], g_labels, ks=(3,), per_query=True)
    for key, values in whole.items():
        assert mixed[key].tolist() == pytest.approx(values[order].tolist()), key


@given(worlds(), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_lengths_of_vectors_do_not_matter(world, a, b):
    q, g, *labels, _ = world
    assert ssgn.evaluate(a * q, b * g, *labels, ks=(3,)) == pytest.approx(
        ssgn.evaluate(q, g, *labels, ks=(3,))
    )


@given(worlds())
def test_numbers_of_classes_do_not_matter(world):
    q, g, q_labels, g_labels, _ = world
    renamed = torch.tensor([70, -2, 11])
    assert ssgn.evaluate(q, g, renamed[q_labels], renamed[g_labels], ks=(3,)) == ssgn.evaluate(
        q, g, q_labels, g_labels, ks=(3,)
    )


# Other libraries --------------------------------------------------------------------------


def scores_of(ranking):
    """Falling scores, one a rank: no ties."""
    return np.linspace(1, 0.1, len(ranking))


@given(rankings)
def test_map_at_all_is_scikit_learns_and_torchmetrics(ranking):
    ours = metrics_of(ranking, 1)["mAP@all"]
    scores = scores_of(ranking)
    assert ours == pytest.approx(average_precision_score(ranking, scores))
    theirs = retrieval_average_precision(torch.tensor(scores), torch.tensor(ranking))
    assert ours == pytest.approx(theirs.item(), abs=1e-6)


@given(rankings, cut_offs)
def test_torchmetrics_top_k_divides_by_the_number_found(ranking, k):
    """Its retrieval_average_precision(top_k) is SEM-PCYC's definition and none of the others."""
    scores, target = torch.tensor(scores_of(ranking)), torch.tensor(ranking)
    theirs = retrieval_average_precision(scores, target, top_k=k)
    assert metrics_of(ranking, k)["mAP@k"] == pytest.approx(theirs.item(), abs=1e-6)


@given(rankings, cut_offs)
def test_torchmetrics_precision_with_adaptive_k(ranking, k):
    """In a gallery smaller than k, k becomes its size; torchmetrics has that as an option."""
    scores, target = torch.tensor(scores_of(ranking)), torch.tensor(ranking)
    theirs = retrieval_precision(scores, target, top_k=k, adaptive_k=True)
    assert metrics_of(ranking, k)["P@k"] == pytest.approx(theirs.item(), abs=1e-6)


# Ties -------------------------------------------------------------------------------------


@pytest.mark.parametrize("order, want", [([0, 1, 2, 3], 1.0), ([2, 3, 0, 1], (1 / 3 + 2 / 4) / 2)])
def test_the_gallerys_order_breaks_ties_and_scikit_learn_breaks_none(order, want):
    """scikit-learn takes items of one score as one step: here the precision of the whole."""
    right = torch.tensor([True, True, False, False])[order]
    same = torch.ones(4, 2)
    ours = ssgn.evaluate(same[:1], same, torch.tensor([1]), right.long(), ks=())["mAP@all"]
    assert ours == pytest.approx(want)
    assert average_precision_score(right, np.ones(4)) == 1 / 2
