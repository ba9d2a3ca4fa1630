"""Synthesize image features for sketches, and rank a gallery by them.

Wherever a function takes a model, it takes an :class:`~ssgn.model.SSGN` or a baseline: anything
with the two maps ``synthesize`` and ``embed`` of :class:`ssgn.baselines.Baseline`.
"""

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


def rank(q: Tensor, g: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best gallery items of each query by cosine: similarities and indices, ``[Q, k]``."""
    if not len(g):
        raise ValueError("the gallery is empty: there is nothing to rank")
    check_finite(q, "queries")
    check_finite(g, "gallery items")
    similarity = F.normalize(q, dim=1) @ F.normalize(g, dim=1).T
    return similarity.topk(min(k, len(g)), dim=1)


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
