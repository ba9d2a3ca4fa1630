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
# # The model
#
# **What you will learn.** Every part of the network and every term it is trained on, each as an
# equation and the lines that implement it; where a careless implementation would leak the answer;
# what each part contributes to a trained model; and how far our default is from the most literal
# reading of the paper.
#
# **What it costs.** Less than a minute: two models are trained, and later chapters reuse one of them.
#
# A sketch $\mathbf{x}$ leaves much open: color, filling, style, pose. A *generative* model treats that
# openness as a random variable $\mathbf{z}$ and learns to produce image features $\mathbf{f}(\mathbf{z},
# \mathbf{x})$ that could belong to the sketch. SSGN builds on a conditional variational auto-encoder (CVAE)
# {cite}`kingma2014vae,sohn2015cvae`, first used for ZS-SBIR by {cite:t}`yelamarthi2018cvae`. It replaces the
# decoder by one with two stages, and adds two losses.
#
# ```{admonition} Where each decision comes from
# :class: important
# We have the paper's abstract and the code of related work, not the full text. A badge on each part says
# whether the abstract states it ({bdg-primary}`A`), the CVAE that it builds on has it ({bdg-secondary}`C`),
# later work that reuses it describes it ({bdg-info}`B`), or it is our own choice ({bdg-warning}`O`).
# ```

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Imports"}
import time

started = time.perf_counter()

import inspect
import re
from statistics import mean

import torch
from IPython.display import Markdown, display

import ssgn
from ssgn import losses, plots
from ssgn.claims import said
from ssgn.comparisons import choices
from ssgn.config import SSGNConfig
from ssgn.model import SSGN
from ssgn.studies import read_ledger
from ssgn.train import untrained

plots.use_style()

# %% tags=["parameters"]
sketches_per_class = 40
seed = 0

# %% [markdown]
# This is the network before training. It is built for the *training classes*, from their features and their
# *word vectors*, which stand for the meaning of the class names:

# %%
ds = ssgn.load_dataset(
    "doodle-emoji", sketches_per_class=sketches_per_class
)
feats = ssgn.extract(ds)
sem = ssgn.class_vectors(ds.classes, source="glove-50")

config = SSGNConfig()
train, words = feats.part("train"), sem[feats.mask("train")]
torch.manual_seed(seed)
model = untrained(feats, train, sem, config, seed).eval()
_ = plots.caption(
    plots.architecture(model),
    "The network, with its real widths. Solid arrows are used at test "
    "time, dashed ones only in training. Follow the solid ones: the "
    "only inputs are the sketch and noise.",
)

# %% [markdown]
# ## The inputs
#
# $\mathbf{x}$ and $\mathbf{v}$ are the features of a sketch and of an image of its class, from several layers
# {eq}`eq-fusion` {bdg-primary}`A`. According to later work {bdg-info}`B`, the paper fuses all five blocks of
# VGG-16 and a fully connected layer {cite}`li2019bdt`. We chose fewer layers, and standardize them
# {eq}`eq-standardize` ({bdg-warning}`O`, [chapter 3](03_features)). $\mathbf{s}$ is the word vector of the
# class: GloVe {cite}`pennington2014glove`, 50 numbers learned from text alone.

# %%
y = torch.tensor(
    [train.classes.index(n) for n in ("octopus", "bus", "crab")]
)


def first(labels):
    """The first row of each of the three classes."""
    return (labels == y[:, None]).int().argmax(1)


x = model.sketch_input(train.sketch[first(train.sketch_labels)])
v = model.photo_input(train.photo[first(train.photo_labels)])
s = model.standardize_semantics(words[y])
print("x", tuple(x.shape), " v", tuple(v.shape), " s", tuple(s.shape))

# %% [markdown]
# Similar things tend to have similar word vectors. These are the nearest neighbors of three classes:

# %%
unit = torch.nn.functional.normalize(sem, dim=1)
for name in ("trumpet", "lobster", "bus"):
    near = (unit @ unit[ds.classes.index(name)]).topk(5).indices[1:]
    print(f"{name:>8}: {', '.join(ds.classes[i] for i in near)}")

# %% [markdown]
# ## The encoder
#
# {bdg-secondary}`C` In training, the encoder sees the answer, an image of the class. It encodes what the
# sketch does not show in a few numbers, the *latent* $\mathbf{z}$:
#
# $$
# \begin{aligned}
# q(\mathbf{z} \mid \mathbf{v}, \mathbf{x})
#   &= \mathcal{N}\bigl(\boldsymbol\mu(\mathbf{v},\mathbf{x}),\,
#     \operatorname{diag} \boldsymbol\sigma^2(\mathbf{v},\mathbf{x})\bigr),
# \\
# \mathbf{z} &= \boldsymbol\mu + \boldsymbol\sigma \odot \boldsymbol\varepsilon,
# \quad \boldsymbol\varepsilon \sim \mathcal{N}(0, I).
# \end{aligned}
# $$ (eq-encoder)

# %%
plots.show_source(SSGN.encode)
mu, log_var = model.encode(v, x)
z = mu + torch.randn_like(mu) * (0.5 * log_var).exp()
print("z", tuple(z.shape))

# %% [markdown]
# ## The semantic head, and the leak it avoids
#
# According to the abstract, the coarse stage works "taking auxiliary semantic information as conditional
# input" {bdg-primary}`A`. Which information? In training the class is known, and its word vector can be
# looked up. **At test time the class of the query is what we are looking for.** Feeding in its true word
# vector hands over the answer, and retrieval becomes a look-up by class name. The abstract does not say what
# the authors did.
#
# We predict the information from the sketch, in training and at test time alike {bdg-warning}`O`. A *semantic
# head* $h$ estimates how much the sketch looks like each *training* class, and averages the word vectors of
# these classes with the resulting weights $\mathbf{p}$:
#
# $$
# \hat{\mathbf{s}} = \sum_{c} p_c\, \mathbf{s}_c, \qquad
# \mathbf{p} = \operatorname{softmax} h(\mathbf{x}), \qquad
# \mathcal{L}_{\text{sem}} = -\log p_y .
# $$ (eq-semantic)

# %%
plots.show_source(SSGN.condition)
s_hat = model.condition(x)

# %% [markdown]
# An unseen class is thus described by the training classes that it resembles. The head could also predict the
# word vector directly, $\hat{\mathbf{s}} = h(\mathbf{x})$, or be trained contrastively against it:
# `SSGNConfig.condition`. [Chapter 9](09_coarse_to_fine) compares them. The true word vector is available as
# `SSGNConfig(condition="oracle")`. Wherever it is shown, it is marked as an upper bound that leaks the label.
#
# ## The coarse-to-fine decoder
#
# First what is common to the *category*, from the meaning; then what is particular to the
# *instance*, from the sketch {bdg-primary}`A`:
#
# $$
# \mathbf{c} = G_c(\mathbf{z}, \hat{\mathbf{s}}), \qquad
# \mathbf{f} = G_f(\mathbf{c}, \mathbf{x}) + \mathbf{g} \odot \mathbf{x}.
# $$ (eq-decoder)

# %%
plots.show_source(SSGN.decode)
f, c = model.decode(z, x, s_hat)
print("c", tuple(c.shape), " f", tuple(f.shape))

# %% [markdown]
# We feed $\mathbf{z}$ to the coarse stage {bdg-warning}`O`; it could enter the fine one, or both
# (`latent_at`). The alternative, a *single-stage* decoder, is the CVAE's, $\mathbf{f} = G(\mathbf{z},
# \mathbf{x}) + \mathbf{g} \odot \mathbf{x}$, with the same last term.
#
# That term, the **skip connection**, is ours {bdg-warning}`O`. A decoder with one narrow hidden layer must
# squeeze everything that a sketch says through it. Yet a column of $\mathbf{x}$ and the same column of
# $\mathbf{v}$ come from the same filter of the same backbone: the one is a first guess at the other. A
# learned gain $\mathbf{g}$ per column lets that guess through. We kept this term because of results on folds
# of seen classes:

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The recorded runs with and without it"}
runs = read_ledger("../results/choices/sketchy-efficientnet-lite0.json")[
    "runs"
]
with_skip, without = (
    mean(r["mAP@all"] for r in runs if r["variant"] == name)
    for name in ("base", "skip False")
)
display(
    Markdown(
        said(
            without < 0.9 * with_skip,
            f"Without the skip connection mAP@all falls from {with_skip:.3f} to {without:.3f}",
        )
        + " (real Sketchy, first 25 of each class, 6,250 images, not extended, photos re-encoded, no "
        "P@200; three folds of seen classes; an earlier default with more layers and "
        f"{choices('efficientnet-lite0')['base'].steps} steps, so these are not the numbers of chapter 3)."
    )
)

# %% [markdown]
# ## The losses
#
# The synthesized features should be those of a real image {bdg-secondary}`C`; the coarse ones those of the
# class on average {bdg-warning}`O`; and the latent's distribution should stay close to the *prior*
# $\mathcal{N}(0, I)$, from which the latent is drawn at test time. The Kullback–Leibler (KL) divergence
# measures this {bdg-secondary}`C`:
#
# $$
# \begin{gathered}
# \mathcal{L}_{\text{rec}} = \tfrac{1}{d}\lVert \mathbf{f} - \mathbf{v}\rVert^2,
# \qquad
# \mathcal{L}_{\text{coarse}} = \tfrac{1}{d}\lVert \mathbf{c} - \bar{\mathbf{v}}_y\rVert^2,
# \\
# \mathcal{L}_{\text{KL}} = \tfrac{1}{2Z} \sum_j
# \bigl( \mu_j^2 + \sigma_j^2 - 1 - \log \sigma_j^2 \bigr).
# \end{gathered}
# $$ (eq-losses)

# %%
plots.show_source(losses.kl)

# %% [markdown]
# Two more act on the synthesized features themselves {bdg-primary}`A`. A *regressor* $R$ must be able to
# predict the word vector from them, so that they keep the meaning of the class, and a *classifier* $C$ must
# be able to predict the class, so that they stay apart from other classes. The abstract does not say what the
# classifier is. A linear one, $-\log \operatorname{softmax}(C(\mathbf{f}))_y$, separates the *training*
# classes, each with weights of its own. Retrieval needs something else: among images, those of the class
# should be nearest. So we predict the class from the cosines to the images $\mathbf{v}_j$ of the batch, the
# examples of one training step {bdg-warning}`O`. Those in $P_y$ have the sketch's class, and the smaller the
# *temperature* $\tau$, the more the largest cosines count {cite}`khosla2020supcon`:
#
# $$
# \mathcal{L}_{\text{reg}} = \tfrac{1}{S}\lVert R(\mathbf{f}) - \mathbf{s}\rVert^2,
# \qquad
# \mathcal{L}_{\text{cls}} = -\frac{1}{\lvert P_y \rvert} \sum_{j \in P_y} \log
#   \frac{e^{\cos(\mathbf{f}, \mathbf{v}_j)/\tau}}{\sum_k e^{\cos(\mathbf{f}, \mathbf{v}_k)/\tau}} .
# $$ (eq-guides)
#
# `SSGNConfig(classifier="linear")` is the other form; [chapter 8](08_ablations) measures the
# difference. The CVAE has a further loss, which we dropped {bdg-warning}`O`: a *back decoder* predicts
# the sketch's features from $\mathbf{f}$ {bdg-secondary}`C`.
#
# Training minimizes the weighted sum, $\mathcal{L} = \sum_t \lambda_t \mathcal{L}_t$, with the weights as
# fields of `SSGNConfig`. A weight of 0 switches a term off; to remove one part like this and measure the
# effect is called an *ablation*. The terms for the three examples:

# %%
with torch.no_grad():
    noise = torch.randn_like(mu)
    terms = model.objective(x, v, s, v, y, noise)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The table of losses"}
display(
    Markdown(
        "| term | weight $\\lambda$ | value before training |\n|---|---|---|\n"
        + "\n".join(
            f"| {name} | {getattr(config, name):g} | {float(value):.3f} |"
            for name, value in terms.items()
        )
    )
)

# %% [markdown]
# ## At test time
#
# There is now no image to encode, so $\mathbf{z}$ comes from the prior. The synthesized features are averaged
# over $K$ draws, and the gallery is ranked by the cosine {eq}`eq-cosine` {bdg-secondary}`C`:
#
# $$
# \bar{\mathbf{f}}(\mathbf{x}) = \frac{1}{K}\sum_{k=1}^{K} \mathbf{f}(\mathbf{z}_k, \mathbf{x}),
# \qquad \mathbf{z}_k \sim \mathcal{N}(0, I).
# $$ (eq-synthesize)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "The source of synthesize"}
plots.show_source(ssgn.synthesize)

# %% [markdown]
# All queries share the $K$ latents. With few of them, every query gets a common offset; the default,
# `draws=64`, averages it out {bdg-warning}`O`.
#
# ## What each part contributes
#
# The synthesized features are a sum of the decoder's own term and the skip connection. We take a trained
# model with each kind of decoder, and retrieve the pseudo-unseen classes with the sum, with either term
# alone, and with $\mathbf{x}$ itself.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Two trained models, from the cache"}
trained = {
    decoder: ssgn.fit_cached(
        feats, sem, SSGNConfig(decoder=decoder), seed=seed
    )
    for decoder in ("coarse-to-fine", "single-stage")
}
held = feats.part("validation")


def score(net, queries):
    """mAP@all on the pseudo-unseen classes."""
    labels = held.sketch_labels, held.photo_labels
    return ssgn.evaluate(
        queries, ssgn.embed(net, held.photo), *labels, ()
    )["mAP@all"]


# %%
found = {}
for decoder, (net, _) in trained.items():
    x_held, f_held = (
        net.sketch_input(held.sketch),
        ssgn.synthesize(net, held.sketch),
    )
    skip = net.gain.detach() * x_held
    found[decoder] = {
        "the sketch's features": score(net, x_held),
        "skip connection": score(net, skip),
        "decoder's term": score(net, f_held - skip),
        "sum": score(net, f_held),
    }

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The table of terms"}
small = sketches_per_class < 40  # too few data for meaningful numbers
nats = {
    decoder: history.column("kl")[-1]
    for decoder, (_, history) in trained.items()
}
names = list(found["single-stage"])
rows = [
    f"| {decoder} | {' | '.join(f'{row[n]:.3f}' for n in names)} | {nats[decoder]:.3f} |"
    for decoder, row in found.items()
]
two = found["coarse-to-fine"]
display(
    Markdown(
        f"| mAP@all, pseudo-unseen classes | {' | '.join(names)} | KL, nats per dimension of z |\n"
        f"|---|{'---|' * len(names)}---|\n"
        + "\n".join(rows)
        + "\n\n"
        + said(
            small
            or all(
                row["decoder's term"]
                < row["skip connection"]
                < row["sum"]
                for row in found.values()
            ),
            "The decoder's term alone is a poor retriever, and the skip connection alone a fair one. Only "
            "the sum is good: the decoder has learned a *correction* of the sketch's features, and a "
            "correction is not a query. ",
            found,
        )
        + said(
            small
            or abs(
                two["skip connection"] / two["the sketch's features"] - 1
            )
            < 0.05,
            "The gain itself hardly matters: its columns stay so close to each other that the skip "
            "connection ranks as $\\mathbf{x}$ does. ",
            two,
        )
        + said(
            small or max(nats.values()) < 0.1,
            "And $\\mathbf{z}$ has nearly *collapsed*: the encoder's distribution hardly differs from the "
            "prior, so the latent says next to nothing about the image ({numref}`ex-collapse`).",
            nats,
        )
    )
)

# %% [markdown]
# What do the coarse features contribute? To find out, we give the fine stage those of another sketch, nearly
# always of another class, or the average over all sketches. (For speed, coarse features are here averaged
# over $\mathbf{z}$ before they go into the fine stage.)

# %%
net, _ = trained["coarse-to-fine"]
x_held = net.sketch_input(held.sketch)
c = ssgn.synthesize(net, held.sketch, stage="coarse")
other = torch.randperm(len(c))


@torch.no_grad()
def refined(c):
    """The final features, given coarse ones."""
    return net.fine_decoder(torch.cat([c, x_held], 1)) + net.gain * x_held


changed = {
    "its own": score(net, refined(c)),
    "another sketch's": score(net, refined(c[other])),
    "the average": score(net, refined(c.mean(0).expand_as(c))),
}

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The table of exchanged coarse features"}
moved = held.sketch_labels[other] != held.sketch_labels
kept = list(changed.values())
display(
    Markdown(
        "| coarse features given to the fine stage | mAP@all, pseudo-unseen classes |\n|---|---|\n"
        + "\n".join(
            f"| {name} | {value:.3f} |" for name, value in changed.items()
        )
        + f"\n\nBy themselves, without the fine stage, the coarse features reach {score(net, c):.3f}. Of the "
        f"exchanged ones, {moved.double().mean():.0%} come from another class. "
        + said(
            small or max(kept) < 1.02 * min(kept),
            "Nevertheless the result is the same: this fine stage does not use what the coarse one says "
            "about the category; the sketch's own features are enough for it. [Chapter 9](09_coarse_to_fine) "
            "asks what would change that.",
            changed,
        )
    )
)

# %% [markdown]
# ## The literal reading
#
# `SSGNConfig.paper()` is the most literal reading of the paper that the sources support;
# `SSGNConfig.paper_small()` is the same at sizes for two CPU cores, and [chapter 11](11_results) judges the
# abstract's claims in this reading too. The table lists its values, each with its source, and our defaults:

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The table of the two readings"}
literal, default = SSGNConfig.paper(), SSGNConfig()
source = inspect.getsource(ssgn.config).partition("\nPAPER = {")[2]
source = source.partition("\n}\n")[0] + "\n"
sources = dict(re.findall(r'"(\w+)": .*?,(?:  # (.*))?\n', source))
differ = {
    name
    for name in ssgn.config.PAPER
    if getattr(literal, name) != getattr(default, name)
}
display(
    Markdown(
        "| field | literal | source | default |\n|---|---|---|---|\n"
        + "\n".join(
            f"| `{name}` | {getattr(literal, name)} | {sources[name]} | "
            + (
                f"**{getattr(default, name)}** |"
                if name in differ
                else "the same |"
            )
            for name in ssgn.config.PAPER
        )
        + "\n\n"
        + said(
            {"skip", "standardize", "draws", "back", "classifier"}
            <= differ,
            "Values in bold are our own choices, among them the skip connection, the standardization, the form of the "
            "classification loss, the dropped back decoder and the number of draws. ",
            sorted(differ),
        )
        + said(
            "[O]" in sources["latent_at"],
            "The place of $\\mathbf{z}$ is our choice in both columns, because no source states it.",
            sources,
        )
    )
)

# %% [markdown]
# ## What it means
#
# Only four of these parts are used at test time: the semantic head, the coarse decoder, the fine decoder and
# the gain. The encoder and the regressor help to train them and are not used again. The result is a map from
# the features of a sketch to those of an image. The equations say what this map should do: come near real
# images of the class, by way of what is common to the class, and keep classes apart. In the two models above,
# the result rests on less than that: on the sketch's own features, and a correction of them.
#
# None of the equations mentions an unseen class. Whether the map carries over to unseen classes is an
# empirical question, which the rest of the book studies term by term.
#
# ## Exercises
#
# ```{exercise} The KL term by hand (warm-up)
# :label: ex-kl
# Derive $\mathcal{L}_{\text{KL}}$ of {eq}`eq-losses` for one dimension from the definition of the
# Kullback–Leibler divergence between two Gaussians. When is it zero?
# ```
#
# ````{solution} ex-kl
# :class: dropdown
# With $q = \mathcal{N}(\mu, \sigma^2)$ and $p = \mathcal{N}(0, 1)$,
#
# $$
# \mathbb{E}_q[\log q] = -\tfrac12\bigl(\log 2\pi + \log\sigma^2 + 1\bigr), \qquad
# \mathbb{E}_q[\log p] = -\tfrac12\bigl(\log 2\pi + \mu^2 + \sigma^2\bigr),
# $$
#
# and their difference is $\tfrac12(\mu^2 + \sigma^2 - 1 - \log \sigma^2)$. Since $\sigma^2 - 1 \ge
# \log\sigma^2$ with equality at $\sigma^2 = 1$ only, it is zero for $\mu = 0$, $\sigma = 1$ and
# positive otherwise. {eq}`eq-losses` takes the mean over the $Z$ dimensions where the divergence of all of
# them would be the sum, so that $\lambda$ need not change when $Z$ does.
# ```python
# from torch.distributions import Normal, kl_divergence
#
# q = Normal(torch.tensor([[0.3]]), torch.tensor([[0.5]]))
# theirs = kl_divergence(q, Normal(0.0, 1.0))
# ours = losses.kl(q.loc, (q.scale**2).log())
# print(float(theirs), float(ours))
# assert torch.allclose(theirs, ours)
# ```
# ````
#
# ```{exercise} Spot the leak (warm-up)
# :label: ex-leak
# A colleague reports much better retrieval. Their test loop calls `decode(z, x, sem[labels])`.
# What did they measure? Where does `ssgn.synthesize` take the condition from, by its source above, and which
# argument would let a true word vector in? Try to pass one.
# ```
#
# ````{solution} ex-leak
# :class: dropdown
# `labels` are the queries' own classes: the true word vector tells the decoder what to retrieve.
# (It is not standardized either, which is a second mistake.) `synthesize` takes no labels. Its condition is
# `model.condition(x[rows])`, which sees sketches only, unless somebody passes `oracle`. A check that the listing
# leaves out refuses this unless the model was built as an oracle:
# ```python
# try:
#     ssgn.synthesize(model, train.sketch[:3], oracle=words[y])
#     raise AssertionError("it should have refused")
# except ValueError as error:
#     print(error)
# ```
# ````
#
# ```{exercise} What if z says nothing? (practice)
# :label: ex-collapse
# Suppose the KL weight is so large that $q(\mathbf{z} \mid \mathbf{v}, \mathbf{x}) =
# \mathcal{N}(0, I)$ for every pair. Which function does the reconstruction loss then make
# $\mathbf{f}$ approximate? Is this bad for retrieval?
# ```
#
# ```{solution} ex-collapse
# :class: dropdown
# The latent is then noise that is independent of $\mathbf{v}$, and the best that $\mathbf{f}$ can do is to
# ignore it and to return the conditional mean $\mathbb{E}[\mathbf{v} \mid \mathbf{x}]$: the squared error's
# minimizer. For *generating* images that is bad, since a mean of images is blurred. For *retrieval* we
# average over $\mathbf{z}$ anyway {eq}`eq-synthesize`, and want the mean. {numref}`ex-draws` of chapter 7
# measures how much the trained decoder depends on $\mathbf{z}$.
# ```
#
# ```{exercise} Which loss trains which part? (practice)
# :label: ex-learns
# Make a table: a row for each of the six losses, a column for each part of the network (encoder,
# semantic head, coarse decoder, fine decoder, gain, regressor). Tick where the loss has a gradient
# with respect to the part's weights. Fill it in from the equations first, then let autograd do it.
# Which parts would not be trained at all if a single loss were switched off?
# ```
#
# ````{solution} ex-learns
# :class: dropdown
# ```python
# parts = {
#     name: list(part.parameters())
#     for name, part in model.named_children()
#     if list(part.parameters())
# } | {"gain": [model.gain]}
# terms = model.objective(x, v, s, v, y, torch.randn_like(mu))
# ticks = {}
# for loss, term in terms.items():
#     for part, weights in parts.items():
#         slopes = torch.autograd.grad(
#             term, weights, retain_graph=True, allow_unused=True
#         )
#         ticks[loss, part] = any(
#             slope is not None and bool(slope.any()) for slope in slopes
#         )
#
# display(
#     Markdown(
#         f"| | {' | '.join(parts)} |\n|---{'|---' * len(parts)}|\n"
#         + "\n".join(
#             f"| {loss} | "
#             + " | ".join("✓" if ticks[loss, p] else "" for p in parts)
#             + " |"
#             for loss in terms
#         )
#     )
# )
# for loss, only in (("kl", "encoder"), ("semantic", "semantic_head")):
#     assert [p for p in parts if ticks[loss, p]] == [only]
# hang_on_one = [p for p in parts if sum(ticks[t, p] for t in terms) == 1]
# assert hang_on_one == ["regressor"]
# assert ticks["reconstruction", "semantic_head"]
# ```
# Only the regressor depends on a single loss, its own; it is not used at test time, so nothing is lost with
# it. The semantic head is trained through the decoder even with its own loss switched off. Its output then
# need not name a class: it is whatever helps to reconstruct. Remember this when [chapter 8](08_ablations)
# switches terms off one by one.
# ````
#
# ```{exercise} A prior that looks at the sketch (challenge)
# :label: ex-prior
# At test time $\mathbf{z}$ comes from $\mathcal{N}(0, I)$, whatever the sketch.
# {cite:t}`sohn2015cvae` learn the prior, $p(\mathbf{z} \mid \mathbf{x}) =
# \mathcal{N}(\boldsymbol\mu_0(\mathbf{x}), \operatorname{diag}\boldsymbol\sigma_0^2(\mathbf{x}))$.
# Derive the KL term for it, check it against `torch.distributions`, train SSGN with both priors,
# and compare on the pseudo-unseen classes. What do you expect?
# ```
#
# ````{solution} ex-prior
# :class: dropdown
# For one dimension, by the same steps as in {numref}`ex-kl`,
#
# $$
# \mathrm{KL} = \tfrac12\Bigl(\frac{\sigma^2 + (\mu - \mu_0)^2}{\sigma_0^2} - 1
#   - \log\frac{\sigma^2}{\sigma_0^2}\Bigr),
# $$
#
# and $\mu_0 = 0$, $\sigma_0 = 1$ give the old one back.
# ```python
# from torch.distributions import Normal, kl_divergence
#
# from ssgn.model import mlp
# from ssgn.train import Batches
#
#
# def kl_between(mu, log_var, mu_0, log_var_0):
#     square = (mu - mu_0).square() + log_var.exp()
#     terms = square / log_var_0.exp() - 1 - log_var + log_var_0
#     return 0.5 * terms.mean()
#
#
# a, b, c_, d = torch.randn(4, 5, 3)
# theirs = kl_divergence(
#     Normal(a, (b / 2).exp()), Normal(c_, (d / 2).exp())
# )
# assert torch.allclose(kl_between(a, b, c_, d), theirs.mean(), atol=1e-5)
# zero = torch.zeros_like(a)
# assert torch.allclose(kl_between(a, b, zero, zero), losses.kl(a, b))
#
#
# def trained(learned_prior):
#     """SSGN, and a network from x to the prior's mean and log-variance."""
#     torch.manual_seed(seed)
#     net = untrained(feats, train, sem, config, seed)
#     two_z = 2 * config.latent
#     prior = mlp(len(net.columns), config.hidden, two_z, config.dropout)
#     both = torch.nn.ModuleList([net, prior])
#     optimizer = torch.optim.AdamW(
#         both.parameters(),
#         config.learning_rate,
#         weight_decay=config.weight_decay,
#     )
#     batches = Batches(net, train, words, seed)  # as in chapter 6
#     for _ in range(config.epochs):
#         both.train()
#         for x_, v_, *rest in batches:
#             terms = net.objective(x_, v_, *rest)
#             mu_0, log_var_0 = (learned_prior * prior(x_)).chunk(2, 1)
#             terms["kl"] = kl_between(*net.encode(v_, x_), mu_0, log_var_0)
#             total = sum(getattr(config, t) * terms[t] for t in terms)
#             optimizer.zero_grad()
#             total.backward()
#             optimizer.step()
#     return net.eval(), prior.eval()
#
#
# held = feats.part("validation")
# for learned_prior in (False, True):
#     net, prior = trained(learned_prior)
#     with torch.no_grad():
#         x_held = net.sketch_input(held.sketch)
#         mu_0, log_var_0 = (learned_prior * prior(x_held)).chunk(2, 1)
#         f_held = torch.zeros_like(x_held)
#         for epsilon in torch.randn(config.draws, 1, config.latent):
#             z_held = mu_0 + (log_var_0 / 2).exp() * epsilon
#             f_held += net.decode(z_held, x_held, net.condition(x_held))[0]
#     level = ssgn.evaluate(
#         f_held,
#         ssgn.embed(net, held.photo),
#         held.sketch_labels,
#         held.photo_labels,
#         ks=(),
#     )["mAP@all"]
#     print("learned prior" if learned_prior else "N(0, I)", f"{level:.3f}")
# ```
# One may expect little. The learned prior lets $\mathbf{z}$ carry what the sketch says about the
# image, but the fine stage is given the sketch anyway; and what the prior learns on seen classes
# has to carry over to unseen ones like everything else. Run several seeds before you conclude.
# ````
#
# ## Further reading
#
# - {cite:t}`doersch2016tutorial` is the gentlest way into variational auto-encoders, the
#   conditional one included; {cite:t}`kingma2014vae` is the source.
# - {cite:t}`sohn2015cvae` condition both encoder and prior on the input: compare their objective
#   with ours, which has a fixed prior.
# - {cite:t}`norouzi2014conse` describe an unseen class as a convex combination of the seen ones'
#   word vectors, as {eq}`eq-semantic` does, with a classifier of images and no training of its
#   own.
# - {cite:t}`bowman2016generating` encountered the collapsed latent ({numref}`ex-collapse`) in models of text,
#   and describe what they did about it.
# - {cite:t}`khosla2020supcon` on the contrastive loss of {eq}`eq-guides`, and on why its sum over the
#   positives is outside the logarithm.

# %% tags=["remove-input"]
plots.footer(started, seed)
