"""Every metric against the definitions in the literature, written out as loops."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score

import ssgn
from ssgn import metrics
from ssgn.metrics import from_ranks, interval, measure, verdict


def by_definition(rel, k):
    """The metrics of one ranking at cut-off k, as the literature defines them."""
    relevant_items, n = sum(rel), len(rel)
    k = min(k, n)

    def precision(i):  # at rank i, from 1
        return sum(rel[:i]) / i

    top = [i for i in range(1, k + 1) if rel[i - 1]]
    total = sum(precision(i) for i in top)
    everywhere = sum(precision(i) for i in range(1, n + 1) if rel[i - 1])
    return {
        "mAP@all": everywhere / relevant_items,
        "P@k": len(top) / k,
        "mAP@k": total / len(top) if top else 0.0,
        "mAP@k/min": voc(rel, k, relevant_items),
        "mAP@k/k": total / k,
    }


def voc(rel, k, relevant_items):
    """The area under the interpolated precision-recall curve of the top k: Pascal VOC's, 2010."""
    found, recall, precision = 0, [0.0], [0.0]
    for i, r in enumerate(rel[:k], 1):
        found += r
        recall.append(found / min(k, relevant_items))
        precision.append(found / i)
    recall.append(1.0)
    precision.append(0.0)
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = zip(recall, recall[1:], precision[1:], strict=False)
    return sum((after - before) * p for before, after, p in steps)


def test_a_ranking_worked_by_hand():
    """Ranks 1, 3 and 6 of 8 are relevant; k = 4 finds two of the three."""
    rel = torch.tensor([[1, 0, 1, 0, 0, 1, 0, 0]], dtype=torch.bool)
    got = {key: value.item() for key, value in measure(rel, (4,)).items()}
    assert got == pytest.approx(
        {
            "mAP@all": (1 + 2 / 3 + 1 / 2) / 3,
            "P@4": 2 / 4,
            "mAP@4": (1 + 2 / 3) / 2,
            "mAP@4/min": (1 + 2 / 3) / 3,  # min(4, 3); the precisions already fall
            "mAP@4/k": (1 + 2 / 3) / 4,
        }
    )


def test_interpolation_takes_the_best_precision_from_there_on_and_not_beyond_k():
    # Precision 0, 1/2, 2/3, 3/4 within k = 4, then 4/5: interpolated to 3/4 at ranks 2, 3, 4.
    got = measure(torch.tensor([[0, 1, 1, 1, 1]], dtype=torch.bool), (4,))
    assert got["mAP@4/min"].item() == pytest.approx(3 * (3 / 4) / 4)
    assert got["mAP@4"].item() == pytest.approx((1 / 2 + 2 / 3 + 3 / 4) / 3)


@pytest.mark.parametrize("k", [1, 3, 10, 30, 99])
def test_rankings_and_ranks_follow_the_definitions(k):
    rng = np.random.default_rng(k)
    rel = rng.random((40, 30)) < rng.random((40, 1))
    rel[:, 7] |= ~rel.any(1)  # at least one relevant item
    got = measure(torch.tensor(rel), (k,))
    for row, ranking in enumerate(rel):
        ranks = torch.tensor(ranking).nonzero().T + 1
        by_rank = from_ranks(ranks, 30, (k,))
        for key, value in by_definition(ranking.astype(int).tolist(), k).items():
            name = key.replace("@k", f"@{k}")
            assert got[name][row].item() == pytest.approx(value, abs=1e-12), (row, key)
            assert by_rank[name].item() == pytest.approx(value, abs=1e-12), (row, key)


def test_metrics_are_zero_if_nothing_relevant_is_in_the_top_k():
    got = measure(torch.tensor([[False, False, True]]), (2,))
    assert [got[f][0].item() for f in ("P@2", "mAP@2", "mAP@2/min", "mAP@2/k")] == [0, 0, 0, 0]


@pytest.fixture(scope="module")
def random():
    """30 queries, 80 gallery items, 5 classes, no ties."""
    gen = torch.Generator().manual_seed(3)
    q, g = torch.randn(30, 6, generator=gen), torch.randn(80, 6, generator=gen)
    return q, g, torch.randint(5, (30,), generator=gen), torch.arange(80) % 5


def test_map_at_all_is_scikit_learns(random):
    q, g, q_labels, g_labels = random
    got = ssgn.evaluate(*random, ks=(), per_query=True)["mAP@all"]
    cosine = (F.normalize(q.double(), dim=1) @ F.normalize(g.double(), dim=1).T).numpy()
    want = [
        average_precision_score(g_labels == label, scores)
        for label, scores in zip(q_labels, cosine, strict=True)
    ]
    assert got.tolist() == pytest.approx(want, abs=1e-9)


def test_means_are_over_queries(random):
    each = ssgn.evaluate(*random, ks=(3, 50), per_query=True)
    mean = ssgn.evaluate(*random, ks=(3, 50))
    assert len(mean) == 9 and set(mean) == set(each)
    for key, values in each.items():
        assert values.shape == (30,) and values.dtype == torch.float64
        assert mean[key] == pytest.approx(sum(values.tolist()) / 30)


def test_a_perfect_and_the_worst_ranking():
    q = torch.tensor([[1.0, 0.0]])
    g = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0]])
    best = ssgn.evaluate(q, g, torch.tensor([4]), torch.tensor([4, 4, 1]), ks=(2,))
    assert set(best.values()) == {1.0}
    worst = ssgn.evaluate(q, g, torch.tensor([4]), torch.tensor([1, 1, 4]), ks=(2,))
    assert worst["mAP@all"] == pytest.approx(1 / 3) and worst["P@2"] == 0


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]])
def test_ties_keep_the_gallerys_order(order):
    """All items are the same, so the ranking is the gallery as given."""
    labels = torch.tensor([1, 0, 0, 1])[order]
    got = ssgn.evaluate(torch.ones(1, 5), torch.ones(4, 5), torch.tensor([1]), labels, ks=(2,))
    want = by_definition((labels == 1).int().tolist(), 2)
    assert got["mAP@all"] == pytest.approx(want["mAP@all"]) and got["P@2"] == want["P@k"]


def test_a_query_of_zeros_ties_with_every_item():
    labels = torch.tensor([1]), torch.tensor([0, 1, 1])
    got = ssgn.evaluate(torch.zeros(1, 3), torch.eye(3), *labels, ks=(1,))
    assert got["mAP@all"] == pytest.approx((1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize("held", [1, 80 * 11, 2**26])
@pytest.mark.parametrize("cells", [1, 80 * 4, 80 * 29])
def test_memory_chunks_change_nothing(random, monkeypatch, cells, held):
    whole, seen, ranks = ssgn.evaluate(*random, per_query=True), [], metrics._ranks
    monkeypatch.setattr(metrics, "_CELLS", cells)
    monkeypatch.setattr(metrics, "_HELD", held)
    monkeypatch.setattr(metrics, "_ranks", lambda x, *more: seen.append(len(x)) or ranks(x, *more))
    chunked = ssgn.evaluate(*random, per_query=True)
    assert max(seen) <= max(1, cells // 80) and sum(seen) == 30  # so it did work in chunks
    assert all(torch.equal(values, chunked[key]) for key, values in whole.items())


# Counting ranks against sorting the gallery -----------------------------------------------


def by_sorting(q, g, q_labels, g_labels, ks):
    """Sort the whole gallery for every query, then measure the rankings."""
    similarity = F.normalize(q, dim=1) @ F.normalize(g, dim=1).T
    order = similarity.argsort(dim=1, descending=True, stable=True)
    return measure(g_labels[order] == q_labels[:, None], ks)


def codes(n, seed):
    """Rows of +1 and -1: their cosines are multiples of 1/8, exactly, so most of them are ties."""
    gen = torch.Generator().manual_seed(seed)
    return torch.randint(2, (n, 16), generator=gen) * 2.0 - 1


def features(n, seed):
    return torch.randn(n, 16, generator=torch.Generator().manual_seed(seed))


def some_copies(n, seed):
    """Features of which every tenth is a copy of its neighbor: a few ties per query."""
    x = features(n, seed)
    x[1::10] = x[::10][: len(x[1::10])]
    return x


@pytest.mark.parametrize("made", [features, some_copies, codes, lambda n, _: torch.ones(n, 4)])
@pytest.mark.parametrize("classes", [2, 7, 60])
def test_ranks_are_counted_as_sorting_would_find_them(made, classes):
    q, g = made(90, 1), made(400, 2)
    if made is some_copies:  # ties at the top too, across classes
        q[:30] = g[10:40]
    gen = torch.Generator().manual_seed(5)
    q_labels = torch.randint(classes, (90,), generator=gen)
    g_labels = torch.arange(400)[torch.randperm(400, generator=gen)] % classes
    given = (q, g, q_labels, g_labels, (1, 10, 399, 1000))
    got, want = ssgn.evaluate(*given, per_query=True), by_sorting(*given)
    for key in want:
        assert torch.allclose(got[key], want[key], rtol=0, atol=1e-12), key


def test_ties_by_chance_are_cheap_and_many_ties_are_sorted(monkeypatch):
    """Both branches are taken, so the test above tests both."""
    taken, argsort = [], torch.Tensor.argsort
    monkeypatch.setattr(
        torch.Tensor,
        "argsort",
        lambda self, *a, **k: taken.append(self.ndim) or argsort(self, *a, **k),
    )
    labels = torch.arange(90) % 7, torch.arange(400) % 7
    ssgn.evaluate(some_copies(90, 1), some_copies(400, 2), *labels)
    few = taken.count(2)
    ssgn.evaluate(codes(90, 1), codes(400, 2), *labels)
    assert taken.count(2) > few


def test_metrics_on_a_gpu_equal_the_cpus(gpu):
    labels = torch.arange(90) % 7, torch.arange(400) % 7
    q, g = codes(90, 1), codes(400, 2)
    here, there = (
        ssgn.evaluate(q.to(d), g.to(d), *labels, per_query=True) for d in ("cpu", "cuda")
    )
    for key in here:
        assert torch.allclose(here[key], there[key].cpu(), rtol=0, atol=1e-12), key


def test_features_that_need_gradients_or_have_half_precision_are_ranked(random):
    q, g, *labels = random
    assert ssgn.evaluate(q.clone().requires_grad_(), g, *labels) == ssgn.evaluate(*random)
    q, g = q.half(), g.half()
    assert ssgn.evaluate(q, g, *labels) == ssgn.evaluate(q.float(), g.float(), *labels)


CLEAR = Path("/proc/self/clear_refs")


@pytest.mark.slow
@pytest.mark.skipif(not CLEAR.exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_the_queries():
    """20,000 x 8,000 similarities are 610 MiB as float32, and sorting them with indices 1,800."""

    def memory(what):
        status = Path("/proc/self/status").read_text()
        return int(re.search(what + r":\s+(\d+)", status)[1]) / 1024

    q, g = torch.randn(20_000, 8), torch.randn(8000, 8)
    labels = torch.arange(20_000) % 25, torch.arange(8000) % 25
    ssgn.evaluate(q[:100], g, labels[0][:100], labels[1])
    CLEAR.write_text("5")  # the peak starts anew
    before = memory("VmRSS")
    ssgn.evaluate(q, g, *labels)
    assert memory("VmHWM") - before < 450


def test_a_gallery_smaller_than_k_is_ranked_whole(random):
    assert ssgn.evaluate(*random, ks=(500,))["P@500"] == ssgn.evaluate(*random, ks=(80,))["P@80"]


# Bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, message",
    [
        ({"g": torch.empty(0, 6), "g_labels": torch.empty(0).long()}, "gallery is empty"),
        ({"q": torch.empty(0, 6), "q_labels": torch.empty(0).long()}, "no queries"),
        ({"g_labels": torch.tensor([0, 1, 3, 3]).repeat(20)}, r"labels\) \[2, 4\]"),
        ({"q_labels": torch.zeros(29).long()}, r"30 queries must be 30 integers.*\(29,\)"),
        ({"g_labels": torch.zeros(81).long()}, r"80 gallery items .*\(81,\)"),
        ({"g_labels": torch.zeros(80, 1).long()}, r"\(80, 1\).*a column labels\[:, 0\]"),
        ({"q_labels": torch.eye(5)[torch.zeros(30).long()]}, r"\(30, 5\).*argmax"),
        ({"q_labels": torch.rand(30)}, "30 integers.*float32"),
        ({"q_labels": torch.full((30,), math.nan)}, "30 integers.*float32"),
        ({"q_labels": torch.zeros(30).bool()}, "30 integers.*bool"),
        ({"q_labels": ["cat"] * 30}, "labels of queries must be numbers"),
        ({"g": torch.ones(80, 5)}, "one space"),
        ({"g": torch.ones(80)}, r"gallery items must be numbers \[N, D\].*\(80,\)"),
        ({"g": torch.ones(80, 6, 1)}, r"gallery items must be numbers.*\(80, 6, 1\)"),
        ({"q": [[0.0] * 6, [0.0] * 5]}, "queries must be numbers: "),
        ({"ks": (10, 0)}, r"\[10, 0\]"),
        ({"ks": (10, -5)}, r"\[10, -5\]"),
        ({"ks": (10, 2.5)}, r"integers .*2.5"),
    ],
)
def test_bad_input_is_named(random, change, message):
    parts = dict(zip(("q", "g", "q_labels", "g_labels"), random, strict=True))
    with pytest.raises(ValueError, match=message):
        ssgn.evaluate(**{**parts, **change})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_features_that_are_not_finite_are_named(random, bad):
    q, g, *labels = random
    for part, what in ((0, "queries"), (1, "gallery items")):
        parts = [q.clone(), g.clone()]
        parts[part][11, 2] = parts[part][13, 0] = bad
        message = f"{what}: 2 of {len(parts[part])} rows.*row 11"
        with pytest.raises(ssgn.FeatureError, match=message):
            ssgn.evaluate(*parts, *labels)


# Any numbers ------------------------------------------------------------------------------


POWERS = {torch.float32: (-126, -60, 60, 120), torch.float64: (-1000, -130, 130, 1000)}


@pytest.mark.parametrize(
    "dtype, power", [(dtype, power) for dtype, powers in POWERS.items() for power in powers]
)
def test_the_length_of_a_vector_does_not_matter(random, dtype, power):
    """Its square is beyond the type's range here; by a power of two, every digit stays the same."""
    q, g, *labels = random
    q, g = q.to(dtype), g.to(dtype, copy=True)
    want, factor = ssgn.evaluate(q, g, *labels), torch.tensor(2.0, dtype=dtype) ** power
    assert ssgn.evaluate(q * factor, g, *labels) == want
    assert ssgn.evaluate(q, g * factor, *labels) == want
    cosines, items = ssgn.rank(q, g, 20)
    for scaled in ((q * factor, g), (q, g * factor)):
        got, same = ssgn.rank(*scaled, 20)
        assert torch.equal(same, items) and torch.allclose(got, cosines, rtol=0, atol=1e-6)
    g[::2] *= factor  # long and short ones side by side
    assert ssgn.evaluate(q, g, *labels) == want and torch.equal(ssgn.rank(q, g, 20)[1], items)


def test_float64_is_measured_in_float64():
    """The second item is nearer by less than float32 can tell."""
    q = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    g = torch.tensor([[1.0, 1e-5], [1.0, 1e-6]], dtype=torch.float64)
    labels = torch.tensor([1]), torch.tensor([0, 1])
    assert ssgn.evaluate(q, g, *labels, ())["mAP@all"] == 1
    assert ssgn.evaluate(q.float(), g, *labels, ())["mAP@all"] == 1
    assert ssgn.rank(q, g, 1)[1].item() == 1 and ssgn.rank(q, g.float(), 1)[1].item() == 1
    assert ssgn.evaluate(q.float(), g.float(), *labels, ())["mAP@all"] == 0.5


def test_large_integer_similarities_keep_their_order():
    s = torch.tensor([[-(2**24) - 1, -(2**24)]])  # negative distances; as float32 they are equal
    assert ssgn.evaluate_similarity(s, [1], [0, 1], ())["mAP@all"] == 1


def test_autocast_changes_nothing(random):
    want, items = ssgn.evaluate(*random), ssgn.rank(*random[:2], 20)
    with torch.autocast("cpu", torch.bfloat16):
        assert ssgn.evaluate(*random) == want
        assert all(map(torch.equal, ssgn.rank(*random[:2], 20), items))


@pytest.mark.parametrize(
    "kind", [torch.int8, torch.uint8, torch.int16, torch.uint16, torch.uint64, torch.float64]
)
def test_labels_of_any_width_are_taken(random, kind):
    q, g, *labels = random
    assert ssgn.evaluate(q, g, *(y.to(kind) for y in labels)) == ssgn.evaluate(*random)


def test_lists_and_integers_are_taken(random):
    q, g, *labels = random
    want = ssgn.evaluate(*random)
    assert ssgn.evaluate(q.tolist(), g.tolist(), *(y.tolist() for y in labels)) == want
    codes = (q > 0).char(), (g > 0).char()
    assert ssgn.evaluate(*codes, *labels) == ssgn.evaluate(*(x.float() for x in codes), *labels)
    assert torch.equal(ssgn.rank(q.tolist(), g.numpy(), 3)[1], ssgn.rank(q, g, 3)[1])


def test_cut_offs_may_be_any_iterable_of_integers(random):
    want = ssgn.evaluate(*random, (3, 7))
    assert ssgn.evaluate(*random, (k for k in (3, 7))) == want
    assert ssgn.evaluate(*random, np.array([3, 7])) == want


def test_a_gallery_of_one_class_is_warned_of():
    with pytest.warns(UserWarning, match="one class.*every metric is 1") as heard:
        ssgn.evaluate(torch.randn(3, 4), torch.randn(5, 4), [2] * 3, [2] * 5)
    assert heard[0].filename == __file__


@pytest.mark.filterwarnings("ignore:all gallery items are of one class")
@pytest.mark.parametrize("seed", range(40))
def test_small_galleries_full_of_ties_agree_with_a_stable_sort(seed):
    rng = np.random.default_rng(seed)
    shape = [int(rng.integers(1, most)) for most in (12, 120, 6, 5)]
    q, g = (torch.tensor(rng.integers(-2, 3, (n, shape[2]))).float() for n in shape[:2])
    g_labels = torch.tensor(rng.integers(0, shape[3], shape[1]))
    q_labels = g_labels[torch.tensor(rng.integers(0, shape[1], shape[0]))]
    got = ssgn.evaluate(q, g, q_labels, g_labels, (1, 5, 200), per_query=True)
    for key, want in by_sorting(q, g, q_labels, g_labels, (1, 5, 200)).items():
        assert torch.allclose(got[key], want, rtol=0, atol=1e-12), key


# Intervals --------------------------------------------------------------------------------


def test_the_interval_of_three_runs_is_students():
    # t(0.975, 2 degrees of freedom) is 4.3027 in any table; the sample's deviation is 1.
    mean, half = interval([1.0, 2.0, 3.0])
    assert mean == 2 and half == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)


def test_one_run_has_no_interval_and_no_runs_are_an_error():
    mean, half = interval([0.25])
    assert mean == 0.25 and math.isnan(half)
    with pytest.raises(ValueError, match="no values"):
        interval([])


@pytest.mark.parametrize("confidence", [95, 1, 0, -0.5, math.nan])
def test_a_confidence_that_is_not_a_share_is_named(confidence):
    with pytest.raises(ValueError, match="between 0 and 1, got .*95% is 0.95"):
        interval([1.0, 2.0], confidence)


def test_a_verdict_needs_the_whole_interval_on_one_side():
    runs = [1.0, 2.0, 3.0]  # 2 ± 2.484
    assert verdict(runs, -0.49) == "holds" and verdict(runs, -0.48) == "open"
    assert verdict(runs, 4.49) == "does not hold" and verdict(runs, 4.48) == "open"
    assert verdict([5.0], 1.0) == "open"


def test_similarities_of_ones_own_are_measured_like_cosines(random):
    q, g, q_labels, g_labels = random
    cosines = F.normalize(q, dim=1) @ F.normalize(g, dim=1).T
    expected = ssgn.evaluate(q, g, q_labels, g_labels, (5, 20), per_query=True)
    found = ssgn.evaluate_similarity(cosines, q_labels, g_labels, (5, 20), per_query=True)
    for key, value in expected.items():
        assert torch.allclose(found[key], value, rtol=0, atol=1e-6), key
    shifted = ssgn.evaluate_similarity(1e6 + cosines.double(), q_labels, g_labels, (5, 20))
    means = {key: float(value.mean()) for key, value in found.items()}
    assert shifted == pytest.approx(means, abs=1e-6)  # float64 keeps the order


def test_numpy_arrays_are_accepted(random):
    arrays = [x.numpy() for x in random]
    assert ssgn.evaluate(*arrays, (5,)) == ssgn.evaluate(*random, (5,))
    similarity = -np.linalg.norm(arrays[0][:, None] - arrays[1][None], axis=2)
    assert 0 < ssgn.evaluate_similarity(similarity, *arrays[2:], (5,))["mAP@all"] <= 1


def test_similarities_that_do_not_fit_are_named(random):
    *_, q_labels, g_labels = random
    s = torch.zeros(len(q_labels), len(g_labels))
    with pytest.raises(ValueError, match=r"must be \[Q, G\]"):
        ssgn.evaluate_similarity(s[0], q_labels, g_labels)
    with pytest.raises(ValueError, match="3 queries must be 3 integers"):
        ssgn.evaluate_similarity(s[:3], q_labels, g_labels)
    with pytest.raises(ssgn.FeatureError, match="similarities: 1 of"):
        s[2, 1] = torch.nan
        ssgn.evaluate_similarity(s, q_labels, g_labels)


# Blocks of similarities -------------------------------------------------------------------


def test_blocks_of_similarities_give_the_numbers_of_the_whole_matrix():
    s = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 7, torch.arange(40) % 7
    want = ssgn.evaluate_similarity(s, *labels, (5, 20))
    for size in (1, 7, 50):
        assert ssgn.evaluate_similarity(iter(s.split(size)), *labels, (5, 20)) == want
    each = ssgn.evaluate_similarity((x.numpy() for x in s.split(9)), *labels, (5,), per_query=True)
    whole = ssgn.evaluate_similarity(s, *labels, (5,), per_query=True)
    assert all(torch.equal(each[key], whole[key]) for key in whole)


def test_blocks_that_do_not_fit_the_labels_are_named():
    s, labels = torch.eye(6), (torch.arange(6) % 2, torch.arange(6) % 2)
    for blocks, message in (
        ([s, s], "more rows of similarities than 6 labels"),
        ([s[:4]], "4 rows of similarities for 6 labels"),
        ([s[:, :5]], r"must be \[n, 6\].* got \(6, 5\)"),
    ):
        with pytest.raises(ValueError, match=message):
            ssgn.evaluate_similarity(iter(blocks), *labels, (1,))
    with pytest.raises(ssgn.FeatureError, match="NaN"):
        ssgn.evaluate_similarity(iter([s / 0]), *labels, (1,))


def test_every_metric_has_the_literatures_name():
    s, labels = torch.rand(9, 9), torch.arange(9) % 3
    rows = metrics.named(ssgn.evaluate_similarity(s, labels, labels, (2, 9)), [2], 9)
    assert [row[0] for row in rows[1:]] == [
        "mAP@all", "P@2", "mAP@2", "mAP@2/min", "mAP@2/k", "mAP@9/min",
    ]  # fmt: skip
    assert rows[4][2] == "mAP@2 of SAKE, ACNet and ZSE-SBIR" and "mAP@all of SAKE" in rows[6][2]
