"""Synthesize image features for sketches, and rank a gallery by them.

Wherever a function takes a model, it takes an :class:`~ssgn.model.SSGN` or a baseline: anything
with the two maps ``synthesize`` and ``embed`` of :class:`ssgn.baselines.Baseline`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .backbones import Features, check_finite
from .leaks import evaluated
from .metrics import evaluate
from .model import SSGN, check_features


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


SEARCHES = ("exact", "faiss", "faiss-approximate")
_QUERIES, _ITEMS = 1024, 2**16  # similarities held at a time: 256 MiB


class Index:
    """A gallery made ready to be searched by cosine, as often as one likes.

    It holds a copy of the gallery with rows of length 1: 4 G D bytes.

    Args:
        g: ``[G, D]`` gallery features.
        method: ``"exact"``: PyTorch, on the gallery's device. ``"faiss"``: exact as well, by FAISS
            (Douze et al., The Faiss Library, 2024) on the CPU; it needs the extra
            ``ssgn[faiss]``. ``"faiss-approximate"``: k-means first divides the gallery into
            2 sqrt(G) cells, and a query is compared with the items of the nearest cells only.
        probes: approximate search looks into so many cells. More find more and take longer;
            :func:`recall` tells how much is found.
        seed: of the cells.

    Raises:
        ValueError: an empty gallery, an unknown method, fewer than one probe, or FAISS is not
            installed.
        FeatureError: features that are not finite.
    """

    def __init__(self, g: Tensor, method: str = "exact", *, probes: int = 16, seed: int = 0):
        if method not in SEARCHES:
            raise ValueError(f"method is {method!r}; it can be {', '.join(SEARCHES)}")
        if probes < 1:
            raise ValueError(f"probes is {probes}; at least one cell must be looked into")
        if not len(g):
            raise ValueError("the gallery is empty: there is nothing to rank")
        check_finite(g, "gallery items")
        self.method, self.probes, self.shape = method, probes, g.shape
        unit = F.normalize(g.float(), dim=1)
        if method == "exact":
            self._gallery = unit
        else:
            self._faiss = _faiss_index(unit.cpu(), method, seed)

    def __len__(self) -> int:
        return self.shape[0]

    @torch.no_grad()
    def search(self, q: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k best items of each query, best first; all of them, if there are fewer than k.

        In which order items of equal similarity come is not defined.

        Args:
            q: ``[Q, D]``.

        Returns:
            Similarities float32 and item numbers int64, ``[Q, k]`` each, on the queries' device.

        Raises:
            ValueError: queries of another width than the gallery's, or k < 1.
            FeatureError: queries that are not finite.
        """
        if q.ndim != 2 or q.shape[1] != self.shape[1]:
            raise ValueError(
                f"queries {tuple(q.shape)} and gallery {tuple(self.shape)} must be [Q, D] and "
                "[G, D] of one space: synthesize() and embed() of the same model"
            )
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1")
        check_finite(q, "queries")
        k = min(k, len(self))
        unit = F.normalize(q.float(), dim=1)
        if self.method == "exact":
            unit = unit.to(self._gallery.device)
            found = [self._exact(rows, k) for rows in unit.split(_QUERIES)]
            similarity, items = (torch.cat(part) for part in zip(*found, strict=True))
        else:
            similarity, items = self._by_faiss(unit.cpu(), k)
        return similarity.to(q.device), items.to(q.device)

    def _exact(self, q: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The best of the best of each block of the gallery."""
        best = q.new_empty(len(q), 0), torch.empty(len(q), 0, dtype=torch.int64, device=q.device)
        for start in range(0, len(self), _ITEMS):
            similarity = q @ self._gallery[start : start + _ITEMS].T
            top, items = similarity.topk(min(k, similarity.shape[1]), dim=1)
            top, items = torch.cat([best[0], top], 1), torch.cat([best[1], items + start], 1)
            top, order = top.topk(min(k, top.shape[1]), dim=1)
            best = top, items.gather(1, order)
        return best

    def _by_faiss(self, q: Tensor, k: int) -> tuple[Tensor, Tensor]:
        if self.method == "faiss":
            return tuple(map(torch.from_numpy, self._faiss.search(q.numpy(), k)))
        self._faiss.nprobe = min(self.probes, self._faiss.nlist)
        similarity, items = map(torch.from_numpy, self._faiss.search(q.numpy(), k))
        # FAISS says -1 where the cells held fewer than k items: look into all of them.
        short = (items < 0).any(1)
        if short.any():
            self._faiss.nprobe = self._faiss.nlist
            more = map(torch.from_numpy, self._faiss.search(q[short].numpy(), k))
            similarity[short], items[short] = more
        return similarity, items


def _faiss_index(unit: Tensor, method: str, seed: int):
    try:
        import faiss
    except ImportError as error:
        raise ValueError(
            f"method {method!r} needs a package that is not installed. Install it with: "
            f"pip install 'ssgn[faiss]' ({error})"
        ) from error
    count, width = unit.shape
    index = faiss.IndexFlatIP(width)
    if method == "faiss-approximate":
        cells = min(count, math.ceil(2 * math.sqrt(count)))
        index = faiss.IndexIVFFlat(index, width, cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed, index.cp.niter = seed, 10
        index.cp.min_points_per_centroid = 1  # FAISS warns below 39; a small gallery has no more
        # 50 items a cell are enough to place it; k-means over all of them would take hours.
        some = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: 50 * cells]
        index.train(unit[some].numpy())
    index.add(unit.numpy())
    return index


def rank(q: Tensor, g: Tensor | Index, k: int) -> tuple[Tensor, Tensor]:
    """The k best gallery items of each query by cosine: similarities and indices, ``[Q, k]``.

    Args:
        q: ``[Q, D]``.
        g: ``[G, D]``, or an :class:`Index` of it, which is worth making for a gallery that is
            searched more than once or that holds a million items.

    Raises:
        ValueError, FeatureError: as :class:`Index` and :meth:`Index.search`.
    """
    return (g if isinstance(g, Index) else Index(g)).search(q, k)


def recall(found: Tensor, true: Tensor) -> float:
    """The share of each query's true best items that a search found; the mean over queries.

    Args:
        found, true: item numbers ``[Q, k]``, in any order.
    """
    if found.shape != true.shape:
        raise ValueError(f"found {tuple(found.shape)} and true {tuple(true.shape)} must be [Q, k]")
    hits = [torch.isin(a, b).sum() for a, b in zip(true, found.to(true.device), strict=True)]
    return float(torch.stack(hits).sum() / true.numel())


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
