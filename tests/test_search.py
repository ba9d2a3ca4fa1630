"""Top-k search: every method against the whole matrix of similarities, sorted."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import ssgn
from ssgn import Index, retrieval
from ssgn.retrieval import recall

METHODS = retrieval.SEARCHES


def features(n, d=16, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def clustered(n, seed):
    """200 clusters in 24 dimensions."""
    centres = features(200, 24)
    gen = torch.Generator().manual_seed(seed)
    of = torch.randint(200, (n,), generator=gen)
    return centres[of] + 0.2 * torch.randn(n, 24, generator=gen)


def plainly(q, g, k):
    similarity = F.normalize(q, dim=1) @ F.normalize(g, dim=1).T
    return [t[:, :k] for t in similarity.sort(dim=1, descending=True)]


@pytest.fixture
def tiny_blocks(monkeypatch):
    monkeypatch.setattr(retrieval, "_QUERIES", 7)
    monkeypatch.setattr(retrieval, "_ITEMS", 13)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("k", [1, 5, 60, 300])
def test_every_method_finds_the_best(method, k, tiny_blocks):
    q, g = features(20, seed=1), features(300)
    # With all cells looked into, the approximate search is exact too.
    similarity, items = Index(g, method, probes=10**6).search(q, k)
    want = plainly(q, g, k)
    assert torch.allclose(similarity, want[0], atol=1e-5) and torch.equal(items, want[1])
    assert similarity.dtype == torch.float32 and items.dtype == torch.int64


@pytest.mark.parametrize("method", METHODS)
def test_rank_takes_an_index_for_a_gallery(method):
    q, g = features(4, seed=1), features(50)
    for here, there in zip(ssgn.rank(q, Index(g, method), 3), ssgn.rank(q, g, 3), strict=True):
        assert here.shape == (4, 3)
        if method != "faiss-approximate":
            assert torch.allclose(here, there, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_only_directions_matter_and_nothing_is_changed(method):
    q, g = features(4, seed=1), features(50)
    before = q.clone(), g.clone()
    index = Index(g * torch.linspace(0.01, 100, 50)[:, None], method, probes=99)
    assert len(index) == 50
    assert torch.equal(index.search(q * 7, 5)[1], plainly(q, g, 5)[1])
    assert torch.equal(index.search(q * 7, 5)[1], plainly(q, g, 5)[1])  # a second time too
    assert torch.equal(q, before[0]) and torch.equal(g, before[1])


@pytest.mark.parametrize("method", METHODS)
def test_a_gallery_smaller_than_k_is_returned_whole(method):
    similarity, items = Index(features(4), method, probes=1).search(features(2, seed=1), 10)
    assert items.sort(dim=1).values.tolist() == [[0, 1, 2, 3]] * 2


def test_cells_with_too_few_items_are_no_answer():
    """One cell of 8 holds fewer than 60 of 100 items; FAISS alone would say -1 for the others."""
    g = features(100)
    similarity, items = Index(g, "faiss-approximate", probes=1).search(features(5, seed=1), 60)
    assert (items >= 0).all() and similarity.isfinite().all()
    assert all(len(set(row)) == 60 for row in items.tolist())


def test_more_probes_find_more():
    q, g = clustered(200, 1), clustered(20_000, 2)
    true = Index(g).search(q, 10)[1]
    found = [
        recall(Index(g, "faiss-approximate", probes=n).search(q, 10)[1], true) for n in (1, 16)
    ]
    assert 0.2 < found[0] < found[1] and found[1] > 0.95


def test_the_same_seed_makes_the_same_cells():
    q, g = clustered(50, 1), clustered(3000, 2)
    a, b = (Index(g, "faiss-approximate", probes=1, seed=3).search(q, 10)[1] for _ in range(2))
    assert torch.equal(a, b)


def test_recall_is_the_share_that_was_found():
    true = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert recall(torch.tensor([[4, 3, 2, 1], [5, 9, 0, 6]]), true) == 6 / 8
    with pytest.raises(ValueError, match=r"found \(2, 3\)"):
        recall(true[:, :3], true)


@pytest.mark.parametrize("method", METHODS)
def test_bad_input_is_named(method):
    g = features(30)
    index = Index(g, method)
    with pytest.raises(ValueError, match=r"\(2, 5\) and gallery \(30, 16\)"):
        index.search(torch.ones(2, 5), 3)
    with pytest.raises(ValueError, match="k is 0"):
        index.search(g, 0)
    with pytest.raises(ValueError, match="gallery is empty"):
        Index(g[:0], method)
    bad = g.clone()
    bad[3, 1] = torch.nan
    with pytest.raises(ssgn.FeatureError, match="gallery items: 1 of 30 rows.*row 3"):
        Index(bad, method)
    with pytest.raises(ssgn.FeatureError, match="queries: 1 of 30 rows.*row 3"):
        index.search(bad, 3)


def test_a_method_or_a_number_of_probes_that_cannot_be():
    with pytest.raises(ValueError, match="'fast'.*exact, faiss, faiss-approximate"):
        Index(features(3), "fast")
    with pytest.raises(ValueError, match="probes is 0"):
        Index(features(3), "faiss-approximate", probes=0)


@pytest.mark.parametrize("method", METHODS[1:])
def test_without_faiss_the_way_out_is_named(method, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ValueError, match=r"pip install 'ssgn\[faiss\]'"):
        Index(features(3), method)
    assert len(Index(features(3)).search(features(1), 2)[1][0]) == 2


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_memory_is_bounded_by_a_block():
    """2,000 queries x 300,000 items would be 2.3 GiB of similarities."""
    script = """
import re, torch, ssgn
index = ssgn.Index(torch.randn(300_000, 8))
q = torch.randn(2000, 8)
def memory(what): return int(re.search(what + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
index.search(q[:10], 10)
open("/proc/self/clear_refs", "w").write("5")
before = memory("VmRSS")
index.search(q, 10)
print((memory("VmHWM") - before) / 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 700


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_finds_the_same():
    q, g = features(20, seed=1).cuda(), features(300).cuda()
    similarity, items = Index(g).search(q, 5)
    assert items.is_cuda and torch.equal(items.cpu(), plainly(q.cpu(), g.cpu(), 5)[1])
