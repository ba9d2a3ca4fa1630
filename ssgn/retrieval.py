"""Synthesize photo features for sketches, and rank a gallery by them.

A model is an :class:`~ssgn.model.SSGN` or anything else with the two methods ``synthesize`` and
``embed``, such as a baseline. The chapter *Retrieval* shows the functions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .features import ArrayLike, FeatureError, Features, as_rows, check_finite, word_vectors
from .leaks import evaluated
from .metrics import check_one_space, cutoffs, evaluate, magnitude, unit, wider
from .model import SSGN
from .moved import moved

__getattr__ = moved(__name__)

_CELLS = 2**24  # numbers held at a time: similarities, or a block of the gallery


@torch.no_grad()
def synthesize(
    model: SSGN,
    sketch: ArrayLike,
    *,
    draws: int | None = None,
    seed: int = 0,
    stage: str = "fine",
    oracle: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    chunk: int = 1024,
) -> Tensor:
    """Synthesize photo features for sketches: the decoder's mean over K draws of z ~ N(0, I) [C].

    It does not know the class of a query: the coarse stage is conditioned on what the semantic head
    predicts from the sketch [O]. The chapters *The model* and *Retrieval* explain it.

    Args:
        model: an SSGN or a baseline.
        sketch: ``[N, D]`` full features, as :func:`~ssgn.extraction.extract` returns them.
        draws: K; by default the model's ``config.draws``. All sketches share the K latents.
        seed: of the draws.
        stage: ``"fine"``, or ``"coarse"`` for the intermediate features of the two-stage decoder.
        oracle: ``[N, S]``, the *true* word vectors of the sketches' classes, only for a model with
            ``condition="oracle"``. It leaks the label, so report such results as an upper bound.
        candidates: ``[U, S]``, word vectors of the classes that queries may be of. The condition
            is then :func:`named`, their average. If unseen classes are among them, this is
            *class-transductive*, so report such results in a table of their own.
        chunk: sketches to decode at a time.

    Returns:
        float32 ``[N, d]``, in the model's own standardized space, on the model's device.

    Raises:
        FeatureError: features of another width, NaN or infinity.
        ValueError: an oracle for a model without one, a missing oracle, or one of another shape;
            candidates for a model that is not conditioned on word vectors; fewer than one draw, or
            sketch at a time; a stage that the decoder does not have; or any of these options for a
            baseline.
    """
    if not isinstance(model, SSGN):
        if (draws, stage, oracle, candidates) != (None, "fine", None, None):
            raise ValueError(
                "draws, stage, oracle and candidates are options of an SSGN, not of a baseline; "
                "leave them out"
            )
        return model.synthesize(as_rows(sketch, "sketch features"))
    if oracle is not None:
        oracle = as_rows(oracle, "oracle word vectors")
    config, draws = model.config, model.config.draws if draws is None else draws
    model.eval()
    x = model.sketch_input(sketch)
    _check_options(model, len(x), draws, stage, oracle, chunk)
    latents = torch.randn(draws, config.latent, generator=torch.Generator().manual_seed(seed)).to(x)
    true = None if oracle is None else model.standardize_semantics(oracle.to(x))
    if candidates is not None:
        true = named(model, x, candidates) @ _candidates(model, candidates)
    out = torch.empty_like(x)
    for rows in torch.arange(len(x), device=x.device).split(chunk):
        s = None
        if config.two_stage:
            s = model.condition(x[rows]) if true is None else true[rows]
        decoded = (model.decode(z.expand(len(rows), -1), x[rows], s) for z in latents)
        out[rows] = sum(f if stage == "fine" else c for f, c in decoded) / draws
    return out


def named(model: SSGN, x: Tensor, candidates: ArrayLike) -> Tensor:
    """Name the class of sketches among candidates, by the word vectors that the model predicts [O].

    The chapter *Coarse-to-fine, understood* uses it.

    Args:
        model: two-stage, with ``condition="regression"`` or ``"convex"``.
        x: ``[B, d]``, from :meth:`~ssgn.model.SSGN.sketch_input`.
        candidates: ``[U, S]`` word vectors.

    Returns:
        ``[B, U]``, the weight of each candidate: a softmax over cosines divided by 0.1.

    Raises:
        ValueError: another model, or candidates of another width.
    """
    words = _candidates(model, candidates)
    return (unit(model.condition(x)) @ unit(words).T / 0.1).softmax(1)


def _candidates(model: SSGN, candidates: ArrayLike) -> Tensor:
    config, words = model.config, as_rows(candidates, "candidates")
    if not config.names_classes:
        raise ValueError(
            "candidates need a two-stage model with condition='regression' or 'convex', and this "
            f"one has condition={config.condition!r}, decoder={config.decoder!r}"
        )
    width = len(model.standardize_semantics.mean)
    if words.shape[1] != width:
        raise ValueError(f"candidates have {words.shape[1]} numbers, the model's words {width}")
    return model.standardize_semantics(words.to(model.standardize_semantics.mean))


def _check_options(
    model: SSGN, n: int, draws: int, stage: str, oracle: Tensor | None, chunk: int
) -> None:
    config = model.config
    if config.leaks != (oracle is not None):
        raise ValueError(
            "a two-stage model with condition='oracle' needs oracle word vectors, and no other "
            f"takes them; this one has condition={config.condition!r}, decoder={config.decoder!r}"
        )
    if stage not in ("fine", "coarse") or (stage == "coarse" and not config.two_stage):
        stages = "fine, coarse" if config.two_stage else "fine"
        raise ValueError(
            f"unknown stage {stage!r} of the {config.decoder} decoder; available: {stages}"
        )
    if min(draws, chunk) < 1:
        raise ValueError(f"draws is {draws} and chunk {chunk}; both must be at least 1")
    width = len(model.standardize_semantics.mean)
    if oracle is not None and oracle.shape != (n, width):
        raise ValueError(
            f"oracle word vectors are {tuple(oracle.shape)} for {n} sketches; give one row of "
            f"{width} numbers per sketch"
        )


@torch.no_grad()
def embed(model: SSGN, photo: ArrayLike) -> Tensor:
    """Map gallery features into the model's own space.

    The chapter *Retrieval* explains it.

    Args:
        model: an SSGN or a baseline.
        photo: ``[M, D]`` full features.

    Returns:
        float32 ``[M, d]``, standardized, on the model's device.

    Raises:
        FeatureError: features of another width, NaN or infinity.
    """
    if isinstance(model, SSGN):
        return model.photo_input(photo)
    return model.embed(as_rows(photo, "photo features"))


class Index:
    """A gallery prepared for many exact searches by cosine.

    It holds ``g`` itself, not a copy (do not change it afterwards), and 4 bytes per item. It
    searches in float64 if the gallery is float64, else in float32. The chapter *GPU and speed*
    measures it.

    Args:
        g: ``[G, D]``, as :func:`embed` returns it.
        hubness: ``[G]``, subtracted from the cosines, see :func:`hubness`.

    Raises:
        ValueError: an empty gallery, or not ``[G, D]``.
        FeatureError: NaN or infinity, or an item whose length exceeds the range of its type.
    """

    @torch.no_grad()
    def __init__(self, g: ArrayLike, hubness: Tensor | None = None):
        g = as_rows(g, "gallery items")
        if not len(g):
            raise ValueError("the gallery is empty; give at least one item")
        step = max(1, _CELLS // g.shape[1])
        norm = torch.cat([_lengths(part.to(wider(g))) for part in g.split(step)])
        # Lengths show NaN and infinity too; checking the gallery itself would copy it.
        check_finite(norm[:, None], "lengths of the gallery items")
        self._g, self._norm, self._hubness = g, torch.where(norm > 0, norm, 1), hubness

    def __len__(self) -> int:
        return len(self._g)

    @torch.no_grad()
    def search(self, q: ArrayLike, k: int) -> tuple[Tensor, Tensor]:
        """Find the k best gallery items of each query by cosine, best first.

        Items of equal similarity keep the gallery's order. The search runs block by block: besides
        its result it needs 0.15 GiB, or 0.55 GiB if most items tie, for any number of queries and
        items (and k up to 10,000).

        Args:
            q: ``[Q, D]``, on the gallery's device.
            k: items per query; a smaller gallery is returned whole.

        Returns:
            Cosines, float32 (float64 in a float64 gallery), and indices, int64, ``[Q, min(k, G)]``
            each.

        Raises:
            ValueError: k is not an integer or below 1, or queries of another width.
            FeatureError: NaN or infinity.
        """
        (k,) = cutoffs((k,))
        q = as_rows(q, "queries")
        check_one_space(q.shape, self._g.shape)
        check_finite(q, "queries")
        k, dtype = min(k, len(self)), self._norm.dtype
        with torch.autocast(q.device.type, enabled=False):
            found = [
                self._blocks(unit(part.to(wider(part))).to(dtype), k)
                for part in q.split(max(1, min(1024, _CELLS // k)))
            ]
        return torch.cat([s for s, _ in found]), torch.cat([i for _, i in found])

    def _blocks(self, q: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Search the gallery block by block, merging each one with the best of those before it."""
        similarity, items = q.new_empty(len(q), 0), q.new_empty(len(q), 0, dtype=torch.int64)
        step = max(k, _CELLS // max(1, *q.shape))
        for start in range(0, len(self), step):
            rows = slice(start, start + step)
            # Divide the products, not the items: there are fewer, and the gallery is not copied.
            block = (q @ self._g[rows].to(q.dtype).T).div_(self._norm[rows])
            if self._hubness is not None:
                block -= self._hubness[rows].to(block)
            best, at = _top(block, k)
            similarity, order = torch.cat([similarity, best], 1).sort(
                dim=1, descending=True, stable=True
            )
            items = torch.cat([items, at + start], 1).gather(1, order)[:, :k]
            similarity = similarity[:, :k]
        return similarity, items


def _lengths(x: Tensor) -> Tensor:
    scale = magnitude(x)
    return (x / scale).norm(dim=1) * scale[:, 0]


def _top(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k best of each row; ties keep their order, which topk does not guarantee."""
    n = similarity.shape[1]
    values, items = similarity.topk(min(k + 1, n), dim=1)
    if k < n:
        tied = values[:, k - 1] == values[:, k]
        values, items = values[:, :k], items[:, :k]
        if tied.any():  # topk chose any of the items that tie with the last one: choose the first
            part, last = similarity[tied], values[tied, -1:]
            above, level = part > last, part == last
            room = k - above.sum(1, keepdim=True)
            items[tied] = (above | level & (level.cumsum(1) <= room)).nonzero()[:, 1].view(-1, k)
    items = items.sort(dim=1).values
    values, order = similarity.gather(1, items).sort(dim=1, descending=True, stable=True)
    return values, items.gather(1, order)


def hubness(g: ArrayLike, bank: ArrayLike, k: int = 10) -> Tensor:
    """Compute how near each gallery item is to queries in general, from a bank of *seen* sketches.

    A few items are near almost every query. Half the mean cosine of an item to its k nearest
    queries, subtracted from the cosines, ranks as cross-domain similarity local scaling does
    (CSLS; Conneau et al., Word Translation Without Parallel Data, ICLR 2018). It uses nothing of
    the unseen classes but the gallery item itself, so it is inductive.

    Args:
        g: ``[G, D]``, as :func:`embed` returns it.
        bank: ``[B, D]``, as :func:`synthesize` returns it for sketches of seen classes.
        k: nearest queries to average.

    Returns:
        ``[G]``, for :class:`Index`, :func:`rank` and :func:`~ssgn.metrics.evaluate`.

    Raises:
        ValueError, FeatureError: see :func:`rank`.
    """
    return rank(g, bank, k)[0].mean(1) / 2


def augmented(q: ArrayLike, g: ArrayLike, n: int = 5) -> tuple[Tensor, Tensor]:
    """Average gallery items with their neighbors, and queries with their first results.

    Database augmentation (Turcot and Lowe, 2009) and average query expansion (Chum et al., ICCV
    2007). They *use the gallery*: the place of an item depends on the others, unlabeled, so such
    results stand in a table of their own.

    Args:
        q, g: ``[Q, D]`` queries and ``[G, D]`` gallery.
        n: neighbors of each item, and results of each query, to average it with.

    Returns:
        New queries and a new gallery, rows of length 1 before the averages are taken.

    Raises:
        ValueError, FeatureError: see :func:`rank`.
    """
    q, g = as_rows(q, "queries"), as_rows(g, "gallery items")
    dtype = wider(q, g)
    q, g = unit(q.to(dtype)), unit(g.to(dtype))
    g = torch.stack([g[near].mean(0) for near in rank(g, g, n + 1)[1]])
    first = rank(q, g, n)[1]
    return torch.cat([q[:, None], unit(g)[first]], 1).mean(1), g


def rank(
    q: ArrayLike, g: ArrayLike | Index, k: int, *, hubness: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Find the k best gallery items of each query by cosine, best first.

    Items of equal similarity keep the gallery's order. The chapter *Retrieval* explains it.

    Args:
        q: ``[Q, D]`` queries, on the gallery's device.
        g: the gallery: ``[G, D]``, or an :class:`Index` of it, to search it more than once.
        k: items per query; a smaller gallery is returned whole.
        hubness: ``[G]``, subtracted from the cosines, see :func:`hubness`; not with an Index, which
            has its own.

    Returns:
        Cosines, float32 (float64 if queries or gallery are), and indices, int64, ``[Q, min(k, G)]``
        each.

    Raises:
        ValueError: k is not an integer, or below 1, an empty gallery, or shapes that do not fit.
        FeatureError: NaN or infinity.
    """
    if not isinstance(g, Index):
        q, g = as_rows(q, "queries"), as_rows(g, "gallery items")
        g = Index(g.double() if wider(q, g) == torch.float64 else g, hubness)
    return g.search(q, k)


def evaluate_unseen(
    model: SSGN,
    feats: Features,
    ks: Sequence[int] = (5, 10),
    *,
    leaked: bool = True,
    generalized: bool = False,
    **options,
) -> dict:
    """Measure retrieval on the unseen classes: all their sketches against all their photos [C].

    The chapters *Retrieval* and *What the backbone has already seen* explain it.

    Args:
        model: an SSGN or a baseline.
        feats: features of all C classes, from the model's backbone.
        ks: see :func:`~ssgn.metrics.evaluate`.
        leaked: keep the unseen classes that the backbone was pre-trained on, with a
            :class:`~ssgn.leaks.LeakWarning`; False takes them out of queries and gallery. A
            smaller gallery is easier: compare only results on the same classes.
        generalized: put the photos of the seen classes into the gallery too, as in generalized
            zero-shot retrieval.
        options: ``semantics``, ``stage``, ``candidates``, ``bank``, ``neighbors``, ``per_query``,
            see :func:`evaluate_all`.

    Returns:
        The metrics of :func:`~ssgn.metrics.evaluate` by key.

    Raises:
        FeatureError: features of another backbone than the model's, NaN or infinity.
        ValueError: no unseen class, none without the leaked ones, or an option that
            :func:`synthesize` or :func:`~ssgn.metrics.evaluate` refuses.
    """
    if isinstance(model, SSGN):
        check_features(model, feats)
    classes = evaluated(feats, leaked)
    if not classes.any():
        raise ValueError(
            f"split {feats.split.name} has no unseen class to evaluate on; choose another split"
        )
    in_gallery = classes | ~feats.unseen if generalized else classes
    chosen = feats.rows(classes[feats.sketch_labels], in_gallery[feats.photo_labels])
    return evaluate_all(model, chosen, ks, **options)


def evaluate_all(
    model: SSGN,
    feats: Features,
    ks: Sequence[int] = (5, 10),
    *,
    semantics: ArrayLike | None = None,
    bank: ArrayLike | None = None,
    neighbors: int = 0,
    per_query: bool = False,
    **options,
) -> dict:
    """Measure the retrieval of all photos in ``feats`` by all sketches in it.

    The chapter *Training* selects epochs with it.

    Args:
        model: an SSGN or a baseline.
        feats: features of C classes, for example ``feats.part("validation")``.
        ks, per_query: see :func:`~ssgn.metrics.evaluate`.
        semantics: ``[C, S]`` word vectors, only for an oracle model.
        bank: ``[B, D]``, full features of seen sketches, such as ``feats.part("train").sketch``, to
            correct for hubs, see :func:`hubness`.
        neighbors: above 0, *uses the gallery*: see :func:`augmented`.
        options: ``stage``, ``candidates`` and ``draws``, see :func:`synthesize`.

    Returns:
        The metrics of :func:`~ssgn.metrics.evaluate` by key.

    Raises:
        FeatureError: features of another width, NaN or infinity.
        ValueError: an option that :func:`synthesize` or :func:`~ssgn.metrics.evaluate` refuses.
    """
    leaks = isinstance(model, SSGN) and model.config.leaks and semantics is not None
    oracle = word_vectors(feats, semantics)[feats.sketch_labels] if leaks else None
    q, g = synthesize(model, feats.sketch, oracle=oracle, **options), embed(model, feats.photo)
    hubs = None if bank is None else hubness(g, synthesize(model, bank, **options))
    if neighbors:
        q, g = augmented(q, g, neighbors)
    labels = feats.sketch_labels, feats.photo_labels
    return evaluate(q, g, *labels, ks, hubness=hubs, per_query=per_query)


def check_features(model: SSGN, feats: Features) -> None:
    """Check that features are of the backbone, and the split of the classes, of a model's training.

    Raises:
        FeatureError: another backbone, width, image size or other weights.
        ValueError: unseen classes that the model has met.
    """
    theirs, ours = feats.provenance, model.provenance
    backbone = theirs.get("backbone", "")
    if model.backbone != backbone or model.width != feats.sketch.shape[1]:
        raise FeatureError(
            f"this model was trained on {model.backbone} features of {model.width} columns, but "
            f"these are {backbone} features of {feats.sketch.shape[1]} columns; extract them with "
            "the model's backbone"
        )
    for name in ("weights", "size"):
        if name in ours and theirs.get(name, ours[name]) != ours[name]:
            raise FeatureError(
                f"this model was trained on features of other {name} of {backbone}: {ours[name]}, "
                f"not {theirs[name]}; extract them with the same {name} (--{name}, in Python "
                f"extract(..., {name}=...))"
            )
    met = {*model.classes, *ours.get("held_out", ())}
    if known := [name for name in feats.split.unseen if name in met]:
        raise ValueError(
            f"the model has met classes that split {feats.split.name} calls unseen, in training or "
            f"to select its epoch: {', '.join(known[:5])}. Give the split that it was trained on"
        )
