# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # UMAP of synthesized features
#
# **What you will learn.** Where the features synthesized from sketches of unseen classes lie among
# the real image features of those classes, and how far a picture of it can be trusted.
#
# **What it costs.** Under a minute.

# %%
import time

started = time.perf_counter()

import warnings

import torch
import torch.nn.functional as F
from IPython.display import Markdown, display

import ssgn
from ssgn import baselines, plots

with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore"
    )  # umap's import warns about optional packages
    import umap

plots.use_style()

# %% tags=["parameters"]
sketches_per_class = 40
seed = 0
epochs = 4

# %%
ds = ssgn.load_dataset(
    "doodle-emoji", sketches_per_class=sketches_per_class
)
feats = ssgn.extract(ds)
sem = ssgn.class_vectors(ds.classes)
model, _ = ssgn.fit_cached(
    feats, sem, ssgn.SSGNConfig(epochs=epochs), seed=seed
)

unseen, gallery = feats.sketch_unseen, feats.photo_unseen
q_labels, g_labels = (
    feats.sketch_labels[unseen],
    feats.photo_labels[gallery],
)
real = ssgn.embed(model, feats.photo[gallery]).cpu()
plain = model.sketch_input(feats.sketch[unseen]).cpu()
fine = ssgn.synthesize(model, feats.sketch[unseen]).cpu()

# %% [markdown]
# UMAP {cite}`mcinnes2018umap` lays points out in the plane so that *neighbours* in the original
# space stay neighbours; distances between far groups, and the sizes of groups, mean little. Because
# retrieval is by cosine, UMAP is given the cosine distance. Real and synthesized features are
# embedded **together**, so that they can be compared at all.
#
# Ten unseen classes are shown, chosen by rule: every fifth when the classes are sorted by how well
# they are retrieved, so that the easy and the hard are both there.

# %%
ap = ssgn.evaluate(fine, real, q_labels, g_labels, (), per_query=True)[
    "mAP@all"
]
score = {
    c: float(ap[q_labels == c].mean()) for c in q_labels.unique().tolist()
}
ranked = sorted(score, key=score.get, reverse=True)
chosen = torch.tensor(ranked[:: max(1, len(ranked) // 10)][:10])
of_q, of_g = torch.isin(q_labels, chosen), torch.isin(g_labels, chosen)


def layout(sketch_side):
    points = F.normalize(
        torch.cat([real[of_g], sketch_side[of_q]]), dim=1
    ).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # a fixed seed makes umap run on one core, and it says so
        return umap.UMAP(
            metric="cosine",
            n_neighbors=15,
            min_dist=0.3,
            random_state=seed,
        ).fit_transform(points)


groups = [
    ds.classes[c] for c in torch.cat([g_labels[of_g], q_labels[of_q]])
]
kinds = ["real picture"] * int(of_g.sum())

# %% [markdown]
# ## Before: sketch features as they are
#
# First the sketches' own fused features, standardised, among the pictures'.

# %%
_ = plots.embedding(
    layout(plain),
    groups,
    kinds + ["sketch features"] * int(of_q.sum()),
    title="Sketch features and pictures of unseen classes",
)
# %% [markdown]
# ## After: features synthesized from the same sketches

# %%
_ = plots.embedding(
    layout(fine),
    groups,
    kinds + ["synthesized from a sketch"] * int(of_q.sum()),
    title="Synthesized features and pictures of unseen classes",
)

# %% [markdown]
# A star in the middle of points of its own colour is a picture that its class's sketches would
# find. Where the points of several colours mix, the decoder cannot tell those classes apart.
#
# ## A figure beside the picture
#
# UMAP can suggest clusters that are not there. **Neighbourhood purity** is measured in the original
# space, over *all* unseen classes: of the $k$ pictures nearest to a sketch's features, which share
# has the sketch's class?


# %%
def purity(sketch_side, k=5):
    _, near = ssgn.rank(sketch_side, real, k)
    return float((g_labels[near] == q_labels[:, None]).float().mean())


chance = float(
    torch.stack(
        [(g_labels == c).float().mean() for c in g_labels.unique()]
    ).mean()
)
raw, _ = baselines.nearest_neighbour(
    feats, taps="single", standardised=False
)
_, near = ssgn.rank(
    ssgn.synthesize(raw, feats.sketch[unseen]).cpu(),
    ssgn.embed(raw, feats.photo[gallery]).cpu(),
    5,
)
purities = {
    "chance": chance,
    "raw embedding": float(
        (g_labels[near] == q_labels[:, None]).float().mean()
    ),
    "sketch features, standardised fusion": purity(plain),
    "coarse features": purity(
        ssgn.synthesize(model, feats.sketch[unseen], stage="coarse").cpu()
    ),
    "fine features": purity(fine),
}
_ = plots.bars(
    purities,
    "share of the 5 nearest pictures that have the sketch's class",
    title="Neighbourhood purity, all unseen classes",
    highlight=("fine features",),
)

# %% tags=["hide-input"]
display(
    Markdown(
        f"Synthesis moves the purity from {purities['sketch features, standardised fusion']:.3f} to "
        f"**{purities['fine features']:.3f}**."
    )
)

# %% [markdown]
# ## Exercises
#
# ```{exercise} UMAP misleads
# :label: ex-umap
# Lay out *random* features: 600 points from a Gaussian in 500 dimensions, ten random "classes".
# Change `n_neighbors` from 5 to 50. What seems to be there?
# ```
#
# ````{solution} ex-umap
# :class: dropdown
# ```python
# points = np.random.default_rng(0).normal(size=(600, 500))
# for n in (5, 50):
#     print(n, umap.UMAP(n_neighbors=n, metric="cosine", random_state=0).fit_transform(points).std(0))
# ```
# With few neighbours, clumps appear in pure noise.
# ````
#
# ```{exercise} Seen classes
# :label: ex-seen
# Make the same picture for ten *training* classes. How does their purity compare, and what does
# that say about the gap between fitting and transfer?
# ```
#
# ```{solution} ex-seen
# :class: dropdown
# Replace `feats.sketch_unseen` by `~(feats.unseen | feats.validation)[feats.sketch_labels]`, and the
# photos' mask likewise. The purity is far higher: the decoder has been told where these pictures
# lie.
# ```

# %% tags=["remove-input"]
plots.footer(started)
