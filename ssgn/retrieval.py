"""Synthesize photo features for sketches, and rank a gallery by them.

Wherever a function takes a model, it takes an :class:`~ssgn.model.SSGN` or anything else with the
two methods ``synthesize`` and ``embed``, such as a baseline. The chapter *Retrieval* shows them.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .features import FeatureError, Features, check_finite
from .leaks import evaluated
from .metrics import check_one_space, evaluate
from .model import SSGN
from .moved import moved

__getattr__ = moved(__name__)

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
    """Photo features for sketches: the decoder's mean over K draws of z ~ N(0, I) [C].

    It does not know a query's class: the coarse stage is conditioned on what the semantic head
    reads off the sketch.

    Args:
        sketch: ``[N, D]`` full features, as :func:`~ssgn.extraction.extract` returns them.
        draws: K; by default the model's ``config.draws``. The same K latents serve all sketches.
        seed: of the draws.
        stage: ``"fine"``, or ``"coarse"`` for the intermediate features of the two-stage decoder.
        oracle: ``[N, S]``, the *true* word vectors of the sketches' classes: only for a model with
            ``condition="oracle"``. It leaks the label, and must be reported so.
        chunk: sketches that are decoded at a time.

    Returns:
        float32 ``[N, d]``, in the model's own standardized space, on the model's device.

    Raises:
        FeatureError: features of another width, or not finite.
        ValueError: an oracle for another model, no oracle for an oracle model, or one of another
            shape; fewer than one draw; a stage that the decoder does not have; any of these
            options with a baseline, which has none of them.
    """
    if not isinstance(model, SSGN):
        if (draws, stage, oracle) != (None, "fine", None):
            raise ValueError("draws, stage and oracle are options of an SSGN; this is a baseline")
        return model.synthesize(sketch)
    config, draws = model.config, model.config.draws if draws is None else draws
    _check_options(model, len(sketch), draws, stage, oracle)
    model.eval()
    x = model.sketch_input(sketch)
    latents = torch.randn(draws, config.latent, generator=torch.Generator().manual_seed(seed)).to(x)
    true = None if oracle is None else model.standardize_semantics(oracle.to(x))
    out = torch.empty_like(x)
    for rows in torch.arange(len(x), device=x.device).split(chunk):
        s = None
        if config.two_stage:
            s = model.condition(x[rows]) if true is None else true[rows]
        decoded = (model.decode(z.expand(len(rows), -1), x[rows], s) for z in latents)
        out[rows] = sum(f if stage == "fine" else c for f, c in decoded) / draws
    return out


def _check_options(model: SSGN, n: int, draws: int, stage: str, oracle: Tensor | None) -> None:
    config = model.config
    if config.leaks != (oracle is not None):
        raise ValueError(
            "oracle word vectors and condition='oracle' go together; this model's condition is "
            f"{config.condition!r} and its decoder {config.decoder!r}"
        )
    if stage not in ("fine", "coarse") or (stage == "coarse" and not config.two_stage):
        raise ValueError(f"no stage {stage!r} in the {config.decoder} decoder")
    if draws < 1:
        raise ValueError(f"draws is {draws}; at least one z must be drawn")
    width = len(model.standardize_semantics.mean)
    if oracle is not None and oracle.shape != (n, width):
        raise ValueError(
            f"oracle word vectors {tuple(oracle.shape)} for {n} sketches: one row of {width} per "
            "sketch is needed"
        )


@torch.no_grad()
def embed(model: SSGN, photo: Tensor) -> Tensor:
    """The gallery in the model's own space: ``[M, D]`` full features to float32 ``[M, d]``.

    Raises:
        FeatureError: features of another width, or not finite.
    """
    return model.photo_input(photo) if isinstance(model, SSGN) else model.embed(photo)


class Index:
    """A gallery that is ready to be searched by cosine, many times and exactly.

    It holds ``g`` itself, not a copy (do not change it afterwards), and 4 bytes per item.

    Args:
        g: ``[G, D]``, as :func:`embed` returns it.

    Raises:
        ValueError: an empty gallery, or not ``[G, D]``.
        FeatureError: NaN or infinity, or an item too large for its length to be a float32.
    """

    @torch.no_grad()
    def __init__(self, g: Tensor):
        if g.ndim != 2:
            raise ValueError(f"a gallery must be [G, D], got {tuple(g.shape)}")
        if not len(g):
            raise ValueError("the gallery is empty: there is nothing to rank")
        step = max(1, _CELLS // max(1, g.shape[1]))
        norm = torch.cat([part.float().norm(dim=1) for part in g.split(step)])
        # Of the lengths, not of the gallery: that would take copies of it.
        check_finite(norm[:, None], "lengths of the gallery items")
        self._g, self._norm = g, norm.clamp_min(1e-12)  # as F.normalize does

    def __len__(self) -> int:
        return len(self._g)

    @torch.no_grad()
    def search(self, q: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k best gallery items of each query by cosine, best first.

        Items of equal similarity keep the gallery's order. The search goes block by block: besides
        its result it needs 0.15 GiB, or 0.55 GiB if most items tie, whatever the numbers of queries
        and items (for k up to 10,000).

        Args:
            q: ``[Q, D]``, on the gallery's device.
            k: a gallery smaller than k is returned whole.

        Returns:
            Similarities, float32, and indices, int64, ``[Q, min(k, G)]`` each.

        Raises:
            ValueError: k below 1, queries of another width than the gallery.
            FeatureError: NaN or infinity.
        """
        if k < 1:
            raise ValueError(f"k is {k}; at least one item must be asked for")
        check_one_space(q.shape, self._g.shape)
        check_finite(q, "queries")
        k = min(k, len(self))
        found = [
            self._blocks(F.normalize(part.float(), dim=1), k)
            for part in q.split(max(1, min(1024, _CELLS // k)))
        ]
        return torch.cat([s for s, _ in found]), torch.cat([i for _, i in found])

    def _blocks(self, q: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Block by block of the gallery, merged with the best of the blocks before it."""
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


def rank(q: Tensor, g: Tensor | Index, k: int) -> tuple[Tensor, Tensor]:
    """The k best gallery items of each query by cosine: similarities and indices, ``[Q, k]``.

    Args:
        q: ``[Q, D]`` queries.
        g: the gallery: ``[G, D]``, or an :class:`Index` of it, to search it more than once. See
            :meth:`Index.search` for the order of ties, the memory that it takes, and the errors.
        k: a gallery smaller than k is returned whole.
    """
    return (g if isinstance(g, Index) else Index(g)).search(q, k)


def evaluate_unseen(
    model: SSGN,
    feats: Features,
    ks: Sequence[int] = (5, 10),
    *,
    semantics: Tensor | None = None,
    leaked: bool = True,
    stage: str = "fine",
    per_query: bool = False,
) -> dict:
    """:func:`~ssgn.metrics.evaluate` on the unseen classes: all sketches against all photos.

    Args:
        semantics: ``[C, S]``, only for an oracle model.
        leaked: keep the unseen classes that the backbone was pre-trained on, with a
            :class:`~ssgn.leaks.LeakWarning`; False takes them out of queries and gallery. A
            smaller gallery is easier: compare only results on the same classes.
        stage: of :func:`synthesize`.
        per_query: of :func:`~ssgn.metrics.evaluate`.

    Raises:
        FeatureError: features of another backbone than the model's.
        ValueError: no unseen class, or none without the leaked ones.
    """
    if isinstance(model, SSGN):
        check_features(model, feats)
    classes = evaluated(feats, leaked)
    if not classes.any():
        raise ValueError(f"split {feats.split.name} has no unseen class to evaluate on")
    semantics = None if semantics is None else semantics[classes]
    options = dict(semantics=semantics, stage=stage, per_query=per_query)
    return evaluate_all(model, feats.keep(classes), ks, **options)


def evaluate_all(
    model: SSGN,
    feats: Features,
    ks: Sequence[int] = (5, 10),
    *,
    semantics: Tensor | None = None,
    stage: str = "fine",
    per_query: bool = False,
) -> dict:
    """:func:`~ssgn.metrics.evaluate` of all sketches of some features against all their photos.

    Args:
        feats: for example ``feats.part("validation")``.
        semantics, stage, per_query: as of :func:`evaluate_unseen`.
    """
    leaks = isinstance(model, SSGN) and model.config.leaks and semantics is not None
    oracle = semantics[feats.sketch_labels] if leaks else None
    q, g = synthesize(model, feats.sketch, stage=stage, oracle=oracle), embed(model, feats.photo)
    return evaluate(q, g, feats.sketch_labels, feats.photo_labels, ks, per_query=per_query)


def check_features(model: SSGN, feats: Features) -> None:
    """Raise a :class:`~ssgn.features.FeatureError` unless ``feats`` have the backbone and the width
    of the features that the model was trained on."""
    backbone = feats.provenance.get("backbone", "")
    if model.backbone != backbone or model.width != feats.sketch.shape[1]:
        raise FeatureError(
            f"this model was trained on {model.backbone} features of {model.width} columns, and "
            f"these are {backbone} features of {feats.sketch.shape[1]} columns"
        )
