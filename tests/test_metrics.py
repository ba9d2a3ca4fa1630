"""Every figure against the definitions in the literature, written out as loops."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score

import ssgn
from ssgn import metrics
from ssgn.metrics import interval, measure, verdict


def by_definition(rel, k):
    """The figures of one ranking at cut-off k, as evidence.md defines them."""
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


def test_interpolation_takes_the_best_precision_from_there_on_but_not_beyond_k():
    # Precision 0, 1/2, 2/3, 3/4 within k = 4, then 4/5: interpolated to 3/4 at ranks 2, 3, 4.
    rel = torch.tensor([[0, 1, 1, 1, 1]], dtype=torch.bool)
    got = measure(rel, (4,))
    assert got["mAP@4/min"].item() == pytest.approx(3 * (3 / 4) / 4)
    assert got["mAP@4"].item() == pytest.approx((1 / 2 + 2 / 3 + 3 / 4) / 3)


@pytest.mark.parametrize("k", [1, 3, 10, 30, 99])
def test_all_figures_follow_their_definitions(k):
    rng = np.random.default_rng(k)
    rel = rng.random((40, 30)) < rng.random((40, 1))
    rel[:, 7] |= ~rel.any(1)  # at least one relevant item
    got = measure(torch.tensor(rel), (k,))
    for row in range(len(rel)):
        for key, value in by_definition(rel[row].astype(int).tolist(), k).items():
            ours = got[key.replace("@k", f"@{k}")][row].item()
            assert ours == pytest.approx(value, abs=1e-12), (row, key)


def test_nothing_relevant_in_the_top_k_is_zero():
    got = measure(torch.tensor([[False, False, True]]), (2,))
    assert [got[f][0].item() for f in ("P@2", "mAP@2", "mAP@2/min", "mAP@2/k")] == [0, 0, 0, 0]


@pytest.fixture(scope="module")
def random():
    """30 queries, 80 gallery items, 5 classes, no ties."""
    gen = torch.Generator().manual_seed(3)
    q, g = torch.randn(30, 6, generator=gen), torch.randn(80, 6, generator=gen)
    q_labels = torch.randint(5, (30,), generator=gen)
    g_labels = torch.arange(80) % 5
    return q, g, q_labels, g_labels


def test_map_at_all_is_scikit_learns(random):
    q, g, q_labels, g_labels = random
    got = ssgn.evaluate(*random, ks=(), per_query=True)["mAP@all"]
    norms = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(g, axis=1)
    cosine = q.numpy() @ g.numpy().T / norms
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


def test_only_directions_matter(random):
    q, g, *labels = random
    lengths = torch.linspace(0.01, 100, len(g))[:, None]
    assert ssgn.evaluate(q * 7, g * lengths, *labels) == pytest.approx(ssgn.evaluate(*random))


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


def test_a_query_without_direction_is_ranked_like_a_tie():
    got = ssgn.evaluate(
        torch.zeros(1, 3), torch.eye(3), torch.tensor([1]), torch.tensor([0, 1, 1]), ks=(1,)
    )
    assert got["mAP@all"] == pytest.approx((1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize("held", [1, 80 * 11, 2**26])
@pytest.mark.parametrize("cells", [1, 80 * 4, 80 * 29])
def test_memory_chunks_change_nothing(random, monkeypatch, cells, held):
    whole = ssgn.evaluate(*random, per_query=True)
    seen = []
    sort_rows = metrics._sort_rows
    monkeypatch.setattr(metrics, "_CELLS", cells)
    monkeypatch.setattr(metrics, "_HELD", held)

    def watched(x, *more):
        if x.shape[1] == 80:  # whole rows; the relevant items are sorted too
            seen.append(len(x))
        sort_rows(x, *more)

    monkeypatch.setattr(metrics, "_sort_rows", watched)
    chunked = ssgn.evaluate(*random, per_query=True)
    assert max(seen) <= max(1, cells // 80) and sum(seen) == 30  # so it did work in chunks
    for key, values in whole.items():
        assert torch.equal(values, chunked[key]), key


# The counts against the plain way ---------------------------------------------------------


def plainly(q, g, q_labels, g_labels, ks):
    """Sort the whole gallery for every query, then measure the rankings."""
    similarity = F.normalize(q, dim=1) @ F.normalize(g, dim=1).T
    order = similarity.argsort(dim=1, descending=True, stable=True)
    return measure(g_labels[order] == q_labels[:, None], ks)


def codes(n, seed, bits=16):
    """Rows of +1 and -1: their cosines are multiples of 1/8, exactly, so most of them are ties."""
    gen = torch.Generator().manual_seed(seed)
    return torch.randint(2, (n, bits), generator=gen) * 2.0 - 1


def features(n, seed):
    return torch.randn(n, 16, generator=torch.Generator().manual_seed(seed))


def some_copies(n, seed):
    """Features of which every tenth is a copy of its neighbour: a few ties a query."""
    x = features(n, seed)
    x[1::10] = x[::10][: len(x[1::10])]
    return x


@pytest.fixture(params=["sorting", "histogram"])
def way(request, monkeypatch):
    """Both ways of counting, the GPU's too, on the CPU."""
    if request.param == "histogram":
        monkeypatch.setattr(
            metrics,
            "_count_by_search",
            lambda ascending, own, equal: metrics._count_by_histogram(
                ascending.flip(1), own, equal
            ),
        )


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("made", [features, some_copies, codes])
@pytest.mark.parametrize("classes", [2, 7, 60])
def test_ranks_are_counted_as_sorting_would_find_them(made, classes):
    q, g = made(90, 1), made(400, 2)
    if made is some_copies:  # ties at the top too, across classes
        q[:30] = g[10:40]
    gen = torch.Generator().manual_seed(5)
    q_labels = torch.randint(classes, (90,), generator=gen)
    g_labels = torch.arange(400)[torch.randperm(400, generator=gen)] % classes
    got = ssgn.evaluate(q, g, q_labels, g_labels, ks=(1, 10, 399, 1000), per_query=True)
    want = plainly(q, g, q_labels, g_labels, (1, 10, 399, 1000))
    for key in want:
        assert torch.allclose(got[key], want[key], rtol=0, atol=1e-12), key


@pytest.mark.usefixtures("way")
def test_everything_is_one_tie():
    q_labels, g_labels = torch.arange(20) % 3, torch.arange(50) % 3
    q, g = torch.ones(20, 4), torch.ones(50, 4)
    got = ssgn.evaluate(q, g, q_labels, g_labels, ks=(7,), per_query=True)
    for key, want in plainly(q, g, q_labels, g_labels, (7,)).items():
        assert got[key].tolist() == pytest.approx(want.tolist()), key


def test_ties_by_chance_are_cheap_and_many_ties_are_sorted(monkeypatch):
    """Both branches are taken, so the tests above test both."""
    taken = []
    argsort = torch.Tensor.argsort
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_finds_the_same():
    labels = torch.arange(90) % 7, torch.arange(400) % 7
    q, g = codes(90, 1), codes(400, 2)
    here, there = (
        ssgn.evaluate(q.to(d), g.to(d), *labels, per_query=True) for d in ("cpu", "cuda")
    )
    for key in here:
        assert torch.allclose(here[key], there[key].cpu(), rtol=0, atol=1e-12), key


def test_features_that_still_have_gradients(random):
    q, g, *labels = random
    assert ssgn.evaluate(q.clone().requires_grad_(), g, *labels) == ssgn.evaluate(*random)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_the_queries():
    """20,000 x 8,000 similarities are 610 MiB as float32, and sorting them with indices 1,800."""
    script = """
import re, torch, ssgn
q, g = torch.randn(20_000, 8), torch.randn(8000, 8)
labels = torch.arange(20_000) % 25, torch.arange(8000) % 25
def memory(what): return int(re.search(what + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
ssgn.evaluate(q[:100], g, labels[0][:100], labels[1])
open("/proc/self/clear_refs", "w").write("5")
before = memory("VmRSS")
ssgn.evaluate(q, g, *labels)
print((memory("VmHWM") - before) / 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 450


def test_a_gallery_smaller_than_k(random):
    assert ssgn.evaluate(*random, ks=(500,))["P@500"] == ssgn.evaluate(*random, ks=(80,))["P@80"]


def test_half_precision_features_are_ranked_in_single_precision(random):
    q, g, *labels = random
    q, g = q.half(), g.half()
    assert ssgn.evaluate(q, g, *labels) == ssgn.evaluate(q.float(), g.float(), *labels)


# Bad input --------------------------------------------------------------------------------


def without(random, **changes):
    parts = dict(zip(("q", "g", "q_labels", "g_labels"), random, strict=True))
    return ssgn.evaluate(**{**parts, **changes})


def test_an_empty_gallery(random):
    with pytest.raises(ValueError, match="gallery is empty"):
        without(random, g=torch.empty(0, 6), g_labels=torch.empty(0, dtype=torch.int64))


def test_no_queries(random):
    with pytest.raises(ValueError, match="no queries"):
        without(random, q=torch.empty(0, 6), q_labels=torch.empty(0, dtype=torch.int64))


@pytest.mark.parametrize("part, what", [("q", "queries"), ("g", "gallery items")])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_features_that_are_not_finite(random, part, what, bad):
    x = dict(zip(("q", "g"), random[:2], strict=True))[part].clone()
    x[11, 2] = x[13, 0] = bad
    with pytest.raises(ssgn.FeatureError, match=f"{what}: 2 of {len(x)} rows.*row 11"):
        without(random, **{part: x})


def test_a_query_whose_class_is_not_in_the_gallery(random):
    with pytest.raises(ValueError, match=r"labels\) \[2, 4\]"):
        without(random, g_labels=torch.tensor([0, 1, 3, 3]).repeat(20))


@pytest.mark.parametrize("part, size", [("q_labels", 29), ("g_labels", 81)])
def test_labels_of_another_number(random, part, size):
    with pytest.raises(ValueError, match=f"{size} labels"):
        without(random, **{part: torch.zeros(size, dtype=torch.int64)})


@pytest.mark.parametrize("shape", [(80, 5), (80,), (80, 6, 1)])
def test_two_spaces(random, shape):
    with pytest.raises(ValueError, match=r"one space"):
        without(random, g=torch.ones(shape))


@pytest.mark.parametrize("k", [0, -5])
def test_a_cut_off_below_one(random, k):
    with pytest.raises(ValueError, match=rf"\[10, {k}\]"):
        without(random, ks=(10, k))


# Intervals --------------------------------------------------------------------------------


def test_the_interval_of_three_runs():
    # t(0.975, 2 degrees of freedom) is 4.3027 in any table; the sample's deviation is 1.
    mean, half = interval([1.0, 2.0, 3.0])
    assert mean == 2 and half == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)


def test_one_run_has_no_interval():
    mean, half = interval([0.25])
    assert mean == 0.25 and math.isnan(half)


def test_no_runs():
    with pytest.raises(ValueError, match="no values"):
        interval([])


def test_a_verdict_needs_the_whole_interval_on_one_side():
    runs = [1.0, 2.0, 3.0]  # 2 ± 2.484
    assert verdict(runs, -0.49) == "holds" and verdict(runs, -0.48) == "open"
    assert verdict(runs, 4.49) == "does not hold" and verdict(runs, 4.48) == "open"
    assert verdict([5.0], 1.0) == "open"
