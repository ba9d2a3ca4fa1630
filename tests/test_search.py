"""Top-k of a gallery, block by block, against a full matrix and a sort."""

import pytest
import torch
import torch.nn.functional as F

import ssgn
from ssgn import FeatureError, Index, retrieval


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def signs(*shape, seed=0):
    """Cosines of rows of 16 signs are exact in float32, and few: most are ties."""
    return noise(*shape, seed=seed).sign()


def by_sorting(q, g, k):
    q, g = (x if x.dtype == torch.float64 else x.float() for x in (q, g))
    similarity = F.normalize(q, dim=1) @ F.normalize(g, dim=1).T
    values, items = similarity.sort(dim=1, descending=True, stable=True)
    return values[:, :k], items[:, :k]


def test_items_are_ranked_by_cosine_and_ties_keep_the_gallerys_order():
    q = torch.tensor([[3.0, 0.0], [0.0, 0.1]])
    g = torch.tensor([[0.0, 9.0], [1.0, 1.0], [0.5, 0.0], [-1.0, 0.0]])
    similarity, items = ssgn.rank(q, g, 3)
    assert items.tolist() == [[2, 1, 0], [0, 1, 2]]  # 3 is as similar as 2, and comes later
    assert similarity[:, :2].tolist() == [pytest.approx([1, 0.5**0.5])] * 2


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 1), (7, 300, 24), (33, 1000, 7)])
@pytest.mark.parametrize("k", [1, 10, 2000])
def test_a_search_agrees_with_sorting(shape, k):
    n, m, d = shape
    q, g = noise(n, d), noise(m, d, seed=1) * noise(m, 1, seed=2).exp()
    similarity, items = ssgn.rank(q, g, k)
    want, order = by_sorting(q, g, k)
    assert similarity.dtype == torch.float32 and items.dtype == torch.int64
    assert similarity.shape == items.shape == (n, min(k, m))
    assert torch.allclose(similarity, want, atol=1e-5)
    if d > 1:  # in one dimension all similarities are 1 or -1
        assert torch.equal(items, order)


@pytest.mark.parametrize("cells", [1, 40, 1000, 2**24])
@pytest.mark.parametrize("k", [1, 2, 9, 59, 60, 61])
def test_blocks_agree_with_sorting_to_the_last_bit_and_tie(cells, k, monkeypatch):
    monkeypatch.setattr(retrieval, "_CELLS", cells)
    q, g = signs(13, 16), signs(60, 16, seed=1)
    for got, want in zip(ssgn.rank(q, g, k), by_sorting(q, g, k), strict=True):
        assert torch.equal(got, want)


def test_queries_and_items_of_zeros_are_similar_to_nothing(monkeypatch):
    monkeypatch.setattr(retrieval, "_CELLS", 40)
    q, g = signs(4, 16), signs(30, 16, seed=1)
    q[1], g[::7] = 0, 0
    similarity, items = ssgn.rank(q, g, 12)
    assert torch.equal(items, by_sorting(q, g, 12)[1])
    assert items[1].tolist() == list(range(12)) and not similarity[1].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_galleries_of_other_precisions_can_be_searched(dtype):
    q, g = noise(5, 16), noise(300, 16, seed=1).to(dtype)
    similarity, items = ssgn.rank(q.to(dtype), g, 10)
    want, order = by_sorting(q.to(dtype), g, 10)
    assert torch.allclose(similarity, want, atol=1e-6) and torch.equal(items, order)


@pytest.mark.parametrize("power", [-1000, 1000])
def test_queries_of_any_length_search_a_float32_index(power):
    q, g = noise(5, 16), noise(300, 16, seed=1)
    scores, items = Index(g).search(q.double() * 2.0**power, 10)
    assert torch.equal(items, ssgn.rank(q, g, 10)[1]) and scores.dtype == torch.float32
    with pytest.raises(ValueError, match="k must be integers"):
        Index(g).search(q, [3, 5])


def test_a_search_needs_no_gradient_and_leaves_the_gallery_alone():
    q, g = noise(5, 16).requires_grad_(), noise(300, 16, seed=1).requires_grad_()
    before = g.detach().clone()
    assert not ssgn.rank(q, g, 3)[0].requires_grad and torch.equal(g, before)


def test_an_index_can_be_searched_many_times():
    q, g = noise(20, 16), noise(300, 16, seed=1)
    index = Index(g)
    assert len(index) == 300
    for part in q.split(7):
        assert torch.equal(ssgn.rank(part, index, 5)[1], by_sorting(part, g, 5)[1])
    assert index.search(q[:0], 5)[1].shape == (0, 5)


def test_no_more_similarities_are_held_than_a_block_has(monkeypatch):
    monkeypatch.setattr(retrieval, "_CELLS", 5000)
    seen, top = [], retrieval._top
    monkeypatch.setattr(retrieval, "_top", lambda x, k: seen.append(x.numel()) or top(x, k))
    q, g = noise(1100, 8), noise(300, 8, seed=1)
    ssgn.rank(q, g, 10)
    assert max(seen) <= 5000 and sum(seen) == 1100 * 300


def test_a_gallery_on_the_gpu_is_searched_there(gpu):
    q, g = noise(50, 64), noise(5000, 64, seed=1)
    want, order = by_sorting(q, g, 10)
    similarity, items = ssgn.rank(q.to("cuda"), Index(g.to("cuda")), 10)
    assert similarity.device.type == items.device.type == "cuda"
    assert torch.allclose(similarity.cpu(), want, atol=1e-5)
    assert (items.cpu() == order).float().mean() > 0.99


def test_bad_galleries_are_named():
    bad = torch.ones(9, 3)
    bad[4, 1] = float("inf")
    with pytest.raises(FeatureError, match="gallery items: 1 of 9.*row 4"):
        Index(bad)
    # A finite item whose length is not finite as float32:
    with pytest.raises(FeatureError, match="lengths of the gallery items: 1 of 2.*row 1"):
        ssgn.rank(torch.ones(1, 2), torch.tensor([[1.0, 1], [3e38, 3e38]]), 2)
    with pytest.raises(ValueError, match="gallery is empty"):
        ssgn.rank(torch.ones(2, 3), torch.empty(0, 3), 10)
    with pytest.raises(ValueError, match=r"\(3,\)"):
        Index(torch.ones(3))


def test_bad_queries_are_named():
    index, bad = Index(torch.ones(9, 3)), torch.ones(5, 3)
    bad[2] = float("nan")
    with pytest.raises(FeatureError, match="queries: 1 of 5.*row 2"):
        index.search(bad, 2)
    for shape, message in (((5, 4), r"\(5, 4\).*\(9, 3\)"), ((3,), r"numbers \[N, D\].*\(3,\)")):
        with pytest.raises(ValueError, match=message):
            index.search(torch.ones(shape), 2)
    for k in (0, -1, 2.5, "3"):
        with pytest.raises(ValueError, match=f"k must be integers of at least 1, got .*{k}"):
            index.search(torch.ones(5, 3), k)
