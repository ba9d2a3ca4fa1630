"""Top-k of a gallery: every way to search against the plain one, a full matrix and a sort."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

import ssgn
from ssgn import retrieval
from ssgn.retrieval import METHODS, Index, recall

needs_faiss = pytest.mark.usefixtures("faiss")


@pytest.fixture
def faiss():
    return pytest.importorskip("faiss", reason="needs the extra ssgn[faiss]")


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def signs(*shape, seed=0):
    """Cosines of rows of 16 signs are exact in float32, and few: most are ties."""
    return noise(*shape, seed=seed).sign()


def plain(q, g, k):
    similarity = F.normalize(q.float(), dim=1) @ F.normalize(g.float(), dim=1).T
    values, items = similarity.sort(dim=1, descending=True, stable=True)
    return values[:, :k], items[:, :k]


def clustered(n, d, seed=0):
    """40 classes that overlap."""
    labels = torch.randint(40, (n,), generator=torch.Generator().manual_seed(seed))
    return noise(40, d, seed=9)[labels] + noise(n, d, seed=seed)


@pytest.fixture(scope="module")
def large():
    """20,000 x 32 items indexed approximately, 200 queries, and their true 10 neighbours."""
    pytest.importorskip("faiss", reason="needs the extra ssgn[faiss]")
    g, q = clustered(20_000, 32), clustered(200, 32, seed=1)
    return g, q, Index(g, "faiss-approximate"), ssgn.rank(q, g, 10)


# Every method against the plain one -------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 1), (7, 300, 24), (33, 1000, 7)])
@pytest.mark.parametrize("k", [1, 10, 2000])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_agrees_with_the_plain_one(method, shape, k, request):
    if method != "exact":
        request.getfixturevalue("faiss")
    n, m, d = shape
    q, g = noise(n, d), noise(m, d, seed=1) * noise(m, 1, seed=2).exp()
    similarity, items = ssgn.rank(q, Index(g, method), k)
    want, order = plain(q, g, k)
    assert similarity.dtype == torch.float32 and items.dtype == torch.int64
    assert torch.allclose(similarity, want, atol=1e-5)
    if d > 1:  # in one dimension all similarities are 1 or -1
        assert torch.equal(items, order)
    assert items.sort(1).values.unique_consecutive(dim=1).shape == items.shape


@pytest.mark.parametrize("cells", [1, 40, 1000, 2**24])
@pytest.mark.parametrize("k", [1, 2, 9, 59, 60, 61])
def test_blocks_agree_with_the_whole_matrix_to_the_last_bit_and_tie(cells, k, monkeypatch):
    monkeypatch.setattr(retrieval, "_CELLS", cells)
    q, g = signs(13, 16), signs(60, 16, seed=1)
    for got, want in zip(ssgn.rank(q, g, k), plain(q, g, k), strict=True):
        assert torch.equal(got, want)


def test_queries_and_items_of_zeros_are_similar_to_nothing(monkeypatch):
    monkeypatch.setattr(retrieval, "_CELLS", 40)
    q, g = signs(4, 16), signs(30, 16, seed=1)
    q[1], g[::7] = 0, 0
    similarity, items = ssgn.rank(q, g, 12)
    assert torch.equal(items, plain(q, g, 12)[1])
    assert items[1].tolist() == list(range(12)) and not similarity[1].any()


@needs_faiss
@pytest.mark.parametrize("method", METHODS[1:])
def test_zeros_with_faiss(method):
    q, g = noise(4, 16), noise(30, 16, seed=1)
    q[1], g[::7] = 0, 0
    similarity, items = ssgn.rank(q, Index(g, method), 30)
    assert torch.allclose(similarity, plain(q, g, 30)[0], atol=1e-5)
    assert torch.equal(items.sort(1).values, torch.arange(30).expand(4, -1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_galleries_of_other_precisions(dtype):
    q, g = noise(5, 16), noise(300, 16, seed=1).to(dtype)
    similarity, items = ssgn.rank(q.to(dtype), g, 10)
    want, order = plain(q.to(dtype), g, 10)
    assert torch.allclose(similarity, want, atol=1e-6) and torch.equal(items, order)


def test_what_is_searched_needs_no_gradient_and_is_left_alone():
    q, g = noise(5, 16).requires_grad_(), noise(300, 16, seed=1).requires_grad_()
    before = g.detach().clone()
    assert not ssgn.rank(q, g, 3)[0].requires_grad and torch.equal(g, before)


def test_an_index_is_searched_many_times(monkeypatch):
    q, g = noise(20, 16), noise(300, 16, seed=1)
    index = Index(g)
    assert len(index) == 300
    for part in q.split(7):
        assert torch.equal(ssgn.rank(part, index, 5)[1], plain(part, g, 5)[1])
    assert index.search(q[:0], 5)[1].shape == (0, 5)


def test_no_more_similarities_are_held_than_a_block_has(monkeypatch):
    monkeypatch.setattr(retrieval, "_CELLS", 5000)
    seen, top = [], retrieval._top
    monkeypatch.setattr(retrieval, "_top", lambda x, k: seen.append(x.numel()) or top(x, k))
    q, g = noise(1100, 8), noise(300, 8, seed=1)
    ssgn.rank(q, g, 10)
    assert max(seen) <= 5000 and sum(seen) == 1100 * 300


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gallery_on_the_gpu():
    q, g = noise(50, 64), noise(5000, 64, seed=1)
    want, order = plain(q, g, 10)
    for method in METHODS[: 2 if "faiss" in sys.modules else 1]:
        similarity, items = ssgn.rank(q.cuda(), Index(g.cuda(), method), 10)
        assert similarity.is_cuda and items.is_cuda
        assert torch.allclose(similarity.cpu(), want, atol=1e-5)
        assert recall(items.cpu(), order) > 0.99


# The approximate search -------------------------------------------------------------------


def test_the_approximate_search_finds_nearly_all(large):
    g, q, index, (_, true) = large
    similarity, items = index.search(q, 10)
    assert recall(items, true) >= 0.95
    own = (F.normalize(q, dim=1)[:, None] * F.normalize(g[items], dim=2)).sum(2)
    assert torch.allclose(similarity, own, atol=1e-5)  # of what was found, no approximation
    assert (similarity.diff(dim=1) <= 0).all()


def test_more_probes_find_more(large, monkeypatch):
    _, q, index, (_, true) = large
    found = []
    for probes in (1, 8, 10_000):
        monkeypatch.setattr(index, "probes", probes)
        found.append(recall(index.search(q, 10)[1], true))
    assert found[0] < found[1] < found[2] and found[2] > 0.95


@pytest.mark.parametrize("k", [1000, 20_000])
def test_lists_with_too_few_items_are_not_all_that_is_searched(large, monkeypatch, k):
    """A list has about 140 items."""
    _, q, index, _ = large
    monkeypatch.setattr(index, "probes", 1)
    similarity, items = index.search(q[:3], k)
    assert similarity.isfinite().all() and items.min() >= 0
    assert all(len(row.unique()) == k for row in items)


@needs_faiss
def test_the_seed_decides_the_lists():
    g, q = clustered(6000, 15), clustered(50, 15, seed=1)  # an odd width has other codes
    a, b, c = (Index(g, "faiss-approximate", probes=1, seed=s).search(q, 30)[1] for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_recall():
    true = torch.tensor([[0, 1, 2], [7, 8, 9]])
    assert recall(true, true) == 1
    assert recall(torch.tensor([[2, 0, 1], [9, 8, 7]]), true) == 1  # in any order
    assert recall(torch.tensor([[7, 8, 9], [0, 1, 2]]), true) == 0  # of each query's own
    assert recall(torch.tensor([[5, 2, 6], [7, 0, 8]]), true) == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(2, 3\)"):
        recall(true[:, :2], true)
    with pytest.raises(ValueError, match=r"\(0, 3\)"):
        recall(true[:0], true[:0])


def run(code):
    subprocess.run([sys.executable, "-c", code], check=True)


# What goes wrong --------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_bad_galleries_are_named_whatever_the_method(method):
    bad = torch.ones(9, 3)
    bad[4, 1] = float("inf")
    with pytest.raises(ssgn.FeatureError, match="gallery items: 1 of 9.*row 4"):
        Index(bad, method)
    with pytest.raises(ValueError, match="gallery is empty"):
        Index(torch.empty(0, 3), method)
    with pytest.raises(ValueError, match=r"\(3,\)"):
        Index(torch.ones(3), method)


def test_bad_queries_are_named():
    index, bad = Index(torch.ones(9, 3)), torch.ones(5, 3)
    bad[2] = float("nan")
    with pytest.raises(ssgn.FeatureError, match="queries: 1 of 5.*row 2"):
        index.search(bad, 2)
    with pytest.raises(ValueError, match=r"\(5, 4\).*\(9, 3\)"):
        index.search(torch.ones(5, 4), 2)
    with pytest.raises(ValueError, match=r"\(3,\).*\(9, 3\)"):
        index.search(torch.ones(3), 2)
    for k in (0, -1):
        with pytest.raises(ValueError, match=f"k is {k}"):
            index.search(torch.ones(5, 3), k)


def test_options_that_do_not_exist():
    with pytest.raises(ValueError, match="'annoy'.*exact, faiss, faiss-approximate"):
        Index(torch.ones(9, 3), "annoy")
    with pytest.raises(ValueError, match="probes=3 with method 'exact'"):
        Index(torch.ones(9, 3), probes=3)
    with pytest.raises(ValueError, match="probes=0.*at least one"):
        Index(torch.ones(9, 3), "faiss-approximate", probes=0)


def test_a_finite_item_without_a_finite_length():
    g = torch.tensor([[1.0, 1], [3e38, 3e38]])
    with pytest.raises(ssgn.FeatureError, match="lengths of the gallery items: 1 of 2.*row 1"):
        ssgn.rank(torch.ones(1, 2), g, 2)


@pytest.mark.parametrize("method", METHODS[1:])
def test_without_faiss_the_extra_is_named(method, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"pip install 'ssgn\[faiss\]'.*method='exact'"):
        Index(torch.ones(9, 3), method)
    assert ssgn.rank(torch.ones(1, 3), torch.ones(9, 3), 2)[1].tolist() == [[0, 1]]


def test_faiss_is_imported_only_when_it_is_asked_for():
    run("import sys, ssgn; assert 'faiss' not in sys.modules")


@needs_faiss
def test_faiss_can_be_imported_before_torch():
    """Each brings an OpenMP runtime of its own; the other tests have torch first."""
    run(
        "import faiss, torch, ssgn; g = torch.eye(50);"
        "assert all(ssgn.rank(g, ssgn.Index(g, m), 1)[1].flatten().equal(torch.arange(50))"
        " for m in ('faiss', 'exact', 'faiss'))"
    )
