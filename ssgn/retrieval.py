"""Synthesize image features for sketches, and rank a gallery by them.

Wherever a function takes a model, it takes an :class:`~ssgn.model.SSGN` or a baseline: anything
with the two maps ``synthesize`` and ``embed`` of :class:`ssgn.baselines.Baseline`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .backbones import Features, check_finite
from .leaks import evaluated
from .metrics import check_one_space, evaluate
from .model import SSGN, check_features

METHODS = ("exact", "faiss", "faiss-approximate")
PROBES = 128
CANDIDATES = 16  # compared exactly in the approximate search, times k
SMALL = 5000  # items: below, k-means has too few of them, and there is no time to save
_CELLS = 2**24  # numbers held at a time: similarities, or a block of the gallery


@torch.no_grad()
def synthesize(
    model: SSGN,
    sketch: Tensor,
    *,
    draws: int | None = None,
    seed: int = 0,
    stage: str = "fine",
    oracle: Tensor | None = None,
    chunk: int = 1024,
) -> Tensor:
    """Image features imagined for sketches: the decoder's mean over K draws of z ~ N(0, I) [C].

    Nothing here knows a query's class; the coarse stage is conditioned on what the semantic head
    reads off the sketch.

    Args:
        sketch: ``[N, D]`` full features, as :func:`~ssgn.backbones.extract` returns them.
        draws: K; by default the model's ``config.draws``. The same K latents serve all sketches.
        seed: of the draws.
        stage: ``"fine"``, or ``"coarse"`` for the intermediate features of the two-stage decoder.
        oracle: ``[N, S]``, the *true* word vectors of the sketches' classes: only for a model
            with ``condition="oracle"``. It leaks the label, and must be reported so.

    Returns:
        float32 ``[N, d]``, in the model's own standardised space, on the model's device.

    Raises:
        FeatureError: features of another width, or not finite.
        ValueError: an oracle where none belongs, none where one does, or one of another shape;
            fewer than one draw; a stage that the decoder does not have; any of these options
            with a baseline, which has none of them.
    """
    if not isinstance(model, SSGN):
        if (draws, stage, oracle) != (None, "fine", None):
            raise ValueError("draws, stage and oracle are options of an SSGN; this is a baseline")
        return model.synthesize(sketch)
    if model.config.leaks != (oracle is not None):
        raise ValueError(
            "oracle word vectors and condition='oracle' go together; this model's condition is "
            f"{model.config.condition!r} and its decoder {model.config.decoder!r}"
        )
    if stage not in ("fine", "coarse") or (
        stage == "coarse" and model.config.decoder != "coarse-to-fine"
    ):
        raise ValueError(f"no stage {stage!r} in the {model.config.decoder} decoder")
    draws = model.config.draws if draws is None else draws
    if draws < 1:
        raise ValueError(f"draws is {draws}; at least one z must be drawn")
    model.eval()
    x = model.sketch_input(sketch)
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(draws, model.config.latent, generator=generator).to(x.device)
    if oracle is not None:
        if oracle.shape != (len(x), len(model.standardise_semantics.mean)):
            raise ValueError(
                f"oracle word vectors {tuple(oracle.shape)} for {len(x)} sketches: one row of "
                f"{len(model.standardise_semantics.mean)} a sketch is needed"
            )
        oracle = model.standardise_semantics(oracle.to(x.device))

    out = torch.empty_like(x)
    for rows in torch.arange(len(x), device=x.device).split(chunk):
        part = x[rows]
        s = None
        if model.config.decoder == "coarse-to-fine":
            s = model.condition(part) if oracle is None else oracle[rows]
        total = torch.zeros_like(part)
        for z in latents:
            f, c = model.decode(z.expand(len(part), -1), part, s)
            total += f if stage == "fine" else c
        out[rows] = total / len(latents)
    return out


@torch.no_grad()
def embed(model: SSGN, photo: Tensor) -> Tensor:
    """The gallery in the model's own space: ``[M, D]`` full features to float32 ``[M, d]``."""
    return model.photo_input(photo) if isinstance(model, SSGN) else model.embed(photo)


class Index:
    """A gallery made ready to be searched by cosine, many times.

    Args:
        g: ``[G, D]``, as :func:`embed` returns it.
        method: ``"exact"`` searches with torch, on the gallery's device. It holds ``g`` itself, not
            a copy (do not change it afterwards), and 4 bytes an item. ``"faiss"``, exact as well,
            and ``"faiss-approximate"`` use FAISS, of the extra ``ssgn[faiss]``, on the CPU and
            with as many threads as OMP_NUM_THREADS says. They hold a float32 copy of the gallery
            (the approximate one D/4 bytes an item more), and need ``g`` no longer.
        probes: how many lists ``"faiss-approximate"`` searches for a query, by default 128. It
            sorts the gallery into √G lists (k-means), goes through those with the centres nearest
            to the query by 4-bit codes, and compares the best 16 k exactly: the similarities are
            true, but neighbours can be missing (:func:`recall`). More probes find more and take
            longer; the attribute of that name can be changed between searches. A gallery below
            5,000 items is searched exactly.
        seed: of the k-means.

    Raises:
        ValueError: an empty gallery, no ``[G, D]``, an unknown method, probes below 1 or with a
            method that has none.
        FeatureError: NaN or infinity, or an item too large for its length to be a float32.
        ImportError: FAISS is not installed.
    """

    @torch.no_grad()
    def __init__(
        self, g: Tensor, method: str = "exact", *, probes: int | None = None, seed: int = 0
    ):
        if method not in METHODS:
            raise ValueError(f"no search method {method!r}; there are {', '.join(METHODS)}")
        if probes is not None and (method != "faiss-approximate" or probes < 1):
            raise ValueError(
                f"probes={probes} with method {method!r}: at least one list must be searched, and "
                "only 'faiss-approximate' has lists"
            )
        if g.ndim != 2:
            raise ValueError(f"a gallery must be [G, D], got {tuple(g.shape)}")
        if not len(g):
            raise ValueError("the gallery is empty: there is nothing to rank")
        self.method, self.probes, self.shape = method, probes or PROBES, tuple(g.shape)
        self._ivf = None
        step = max(1, _CELLS // max(1, g.shape[1]))
        norm = torch.cat([part.float().norm(dim=1) for part in g.split(step)])
        # Not of the gallery itself: that would take copies of it.
        check_finite(norm[:, None], "lengths of the gallery items")
        if method == "exact":
            self._g, self._norm = g, norm.clamp_min(1e-12)  # as F.normalize does
            return

        faiss, d = _faiss(), g.shape[1]
        self._index = faiss.IndexFlatIP(d)
        if method == "faiss-approximate" and len(g) >= SMALL:
            # RR: rotated at random, all axes matter alike to codes of the same length; without it
            # neighbours are lost where few axes have most of the variance. RFlat: candidates are
            # compared exactly in the end.
            lists, codes = round(len(g) ** 0.5), d // 2 if d % 2 == 0 else d
            recipe = f"RR{d},IVF{lists},PQ{codes}x4fs,RFlat"
            self._index = faiss.index_factory(d, recipe, faiss.METRIC_INNER_PRODUCT)
            self._ivf = faiss.downcast_index(faiss.extract_index_ivf(self._index))
            self._ivf.cp.seed = seed
            self._ivf.pq.cp.niter = 10  # of 25: the codes are no worse, and take most of the time
            generator = torch.Generator().manual_seed(seed)
            some = torch.randperm(len(g), generator=generator)[: 64 * lists]
            self._index.train(_unit(g[some.to(g.device)]).cpu().numpy())
        for part in g.split(step):
            self._index.add(_unit(part).cpu().numpy())

    def __len__(self) -> int:
        return self.shape[0]

    @torch.no_grad()
    def search(self, q: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k best gallery items of each query by cosine, best first.

        The exact method keeps the gallery's order among equal similarities; FAISS promises no
        order there. Where the approximate one does not find k items in its lists, it searches
        twice as many for that query, until it does.

        The exact method goes block by block: besides its result it needs 0.15 GiB, or 0.55 GiB
        where most items tie, whatever the numbers of queries and items (for k up to 10,000).

        Args:
            q: ``[Q, D]``; with the exact method on the gallery's device.
            k: a gallery smaller than k is returned whole.

        Returns:
            Similarities, float32, and indices, int64, ``[Q, min(k, G)]`` each, on q's device.

        Raises:
            ValueError: k below 1, queries of another width than the gallery.
            FeatureError: NaN or infinity.
        """
        if k < 1:
            raise ValueError(f"k is {k}; at least one item must be asked for")
        check_one_space(q.shape, self.shape)
        check_finite(q, "queries")
        k = min(k, len(self))
        if self.method == "exact":
            parts = q.split(max(1, min(1024, _CELLS // k)))
            found = [self._exact(_unit(part), k) for part in parts]
            return torch.cat([s for s, _ in found]), torch.cat([i for _, i in found])
        similarity, items = self._faiss(_unit(q).cpu(), k)
        return similarity.to(q.device), items.to(q.device)

    def _exact(self, q: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Block by block of the gallery, merged with what the blocks before it had."""
        similarity, items = q.new_empty(len(q), 0), q.new_empty(len(q), 0, dtype=torch.int64)
        step = max(k, _CELLS // max(1, *q.shape))
        for start in range(0, len(self), step):
            rows = slice(start, start + step)
            # Not the items but their products are divided: there are fewer of them, and no copy.
            block = (q @ self._g[rows].float().T).div_(self._norm[rows])
            best, at = _top(block, k)
            similarity, order = torch.cat([similarity, best], 1).sort(
                dim=1, descending=True, stable=True
            )
            items = torch.cat([items, at + start], 1).gather(1, order)[:, :k]
            similarity = similarity[:, :k]
        return similarity, items

    def _faiss(self, q: Tensor, k: int) -> tuple[Tensor, Tensor]:
        similarity, items = torch.empty(len(q), k), torch.full((len(q), k), -1)
        rows, probes = torch.arange(len(q)), self.probes
        while len(rows):
            if self._ivf is not None:
                self._ivf.nprobe = probes
                self._index.k_factor = min(CANDIDATES, len(self) / k)
            found = self._index.search(q[rows].numpy(), k)
            similarity[rows], items[rows] = map(torch.from_numpy, found)
            rows = rows[items[rows, -1] < 0]  # FAISS's mark of a place that nothing was found for
            probes *= 2
        return similarity, items


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.float(), dim=1)


def _top(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of each row; equal ones in their order, which topk alone does not promise."""
    n = similarity.shape[1]
    values, items = similarity.topk(min(k + 1, n), dim=1)
    if k < n:
        tied = values[:, k - 1] == values[:, k]
        values, items = values[:, :k], items[:, :k]
        if tied.any():  # topk took any of those that equal the last one: take the first of them
            part, last = similarity[tied], values[tied, -1:]
            above, level = part > last, part == last
            room = k - above.sum(1, keepdim=True)
            items[tied] = (above | level & (level.cumsum(1) <= room)).nonzero()[:, 1].view(-1, k)
    items = items.sort(dim=1).values
    values, order = similarity.gather(1, items).sort(dim=1, descending=True, stable=True)
    return values, items.gather(1, order)


def _faiss():
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "this search needs FAISS, which is not installed. Install it with: "
            f"pip install 'ssgn[faiss]', or search with method='exact' ({error})"
        ) from error
    return faiss


def rank(q: Tensor, g: Tensor | Index, k: int) -> tuple[Tensor, Tensor]:
    """The k best gallery items of each query by cosine: similarities and indices, ``[Q, k]``.

    Args:
        q: ``[Q, D]`` queries.
        g: the gallery: ``[G, D]``, or an :class:`Index` of it to search it more than once, or
            with FAISS. A tensor is searched exactly; see :meth:`Index.search` for the order of
            equal similarities, the memory that it takes, and the errors.
        k: a gallery smaller than k is returned whole.
    """
    return (g if isinstance(g, Index) else Index(g)).search(q, k)


def recall(found: Tensor, true: Tensor) -> float:
    """How much of an exact search an approximate one found: the share of items in both, of k.

    Args:
        found, true: int64 ``[Q, k]``, indices of the same queries and gallery; no index is twice
            in a row.

    Returns:
        0 to 1.

    Raises:
        ValueError: different shapes, or nothing in them.
    """
    if found.shape != true.shape or found.ndim != 2 or not found.numel():
        raise ValueError(
            f"indices {tuple(found.shape)} and {tuple(true.shape)} must both be [Q, k], of the "
            "same search"
        )
    both = torch.cat([found, true.to(found.device)], dim=1).sort(dim=1).values
    return int((both[:, 1:] == both[:, :-1]).sum()) / found.numel()


def evaluate_unseen(
    model: SSGN,
    feats: Features,
    ks=(5, 10),
    *,
    semantics: Tensor | None = None,
    leaked: bool = True,
    **options,
) -> dict:
    """:func:`~ssgn.metrics.evaluate` on the unseen classes: all sketches against all photos.

    Args:
        semantics: ``[C, S]``, only for an oracle model.
        leaked: keep the unseen classes that the backbone was pre-trained on, with a
            :class:`~ssgn.leaks.LeakWarning`; False takes them out of queries and gallery. A
            smaller gallery is easier, so compare only figures over the same classes.
        options: ``per_query``; and ``stage`` of :func:`synthesize`.

    Raises:
        ValueError: no class is left without the leaked ones.
    """
    if isinstance(model, SSGN):
        check_features(model, feats)
    classes = evaluated(feats, leaked)
    of = classes[feats.sketch_labels], classes[feats.photo_labels]
    return evaluate_classes(model, feats, of, ks, semantics=semantics, **options)


def evaluate_classes(
    model: SSGN,
    feats: Features,
    masks: tuple[Tensor, Tensor],
    ks=(5, 10),
    *,
    semantics: Tensor | None = None,
    stage: str = "fine",
    per_query: bool = False,
) -> dict:
    """:func:`~ssgn.metrics.evaluate` of the sketches and photos that two boolean masks select."""
    q_labels, g_labels = feats.sketch_labels[masks[0]], feats.photo_labels[masks[1]]
    leaks = isinstance(model, SSGN) and model.config.leaks
    q = synthesize(
        model,
        feats.sketch[masks[0]],
        stage=stage,
        oracle=semantics[q_labels] if leaks and semantics is not None else None,
    )
    return evaluate(
        q, embed(model, feats.photo[masks[1]]), q_labels, g_labels, ks, per_query=per_query
    )
