"""From sketches to rankings, and what a query must not depend on."""

import dataclasses
import inspect

import pytest
import torch
import torch.nn.functional as F

import ssgn
from ssgn import FeatureError, retrieval
from ssgn.config import CHOICES
from ssgn.retrieval import augmented, hubness


@pytest.fixture(scope="module")
def queries(world):
    return world.feats.part("unseen").sketch


@pytest.fixture(scope="module", params=CHOICES["decoder"])
def model(request, fit):
    return fit(decoder=request.param)[0]


@pytest.fixture(scope="module")
def oracle(fit):
    return fit(condition="oracle")[0]


def close(a, b):
    """Equal but for the order of additions in matrix products."""
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


# Synthesizing -----------------------------------------------------------------------------


def test_synthesized_features_live_in_the_gallerys_space(model, queries, world):
    q, g = ssgn.synthesize(model, queries), ssgn.embed(model, world.feats.photo)
    assert q.shape == (len(queries), 16) and g.shape == (160, 16)
    assert q.dtype == g.dtype == torch.float32 and q.isfinite().all()
    assert not q.requires_grad and not g.requires_grad
    model.regressor(q)  # the model's own layers take them
    assert ssgn.synthesize(model, torch.empty(0, 24)).shape == (0, 16)


def test_synthesized_features_are_the_decoders_mean_over_draws(model, queries):
    """By hand, one sketch and one latent at a time, with latents of the documented seed."""
    x = model.sketch_input(queries[:3])
    latents = torch.randn(5, 4, generator=torch.Generator().manual_seed(9))
    want = []
    for row in x:
        total = 0
        for z in latents:
            if model.config.two_stage:
                s = model.semantic_head(row[None]).softmax(1) @ model.words
                c = model.coarse_decoder(torch.cat([z[None], s], 1))
                total += model.fine_decoder(torch.cat([c, row[None]], 1))[0]
            else:
                total += model.decoder(torch.cat([z, row])[None])[0]
        want.append(total / 5 + model.gain * row)
    got = ssgn.synthesize(model, queries[:3], draws=5, seed=9)
    assert close(got, torch.stack(want).detach())


@pytest.mark.parametrize("latent_at", ["coarse", "fine"])
def test_the_coarse_stage_can_be_asked_for(fit, queries, latent_at):
    model, _ = fit(condition="regression", latent_at=latent_at, epochs=1)
    x = model.sketch_input(queries[:3])
    z = torch.randn(1, 4, generator=torch.Generator().manual_seed(0)).expand(3, -1)
    s = model.semantic_head(x)
    given = torch.cat([z, s], 1) if latent_at == "coarse" else s
    want = model.coarse_decoder(given).detach()
    assert close(ssgn.synthesize(model, queries[:3], draws=1, stage="coarse"), want)


def test_a_query_depends_neither_on_the_others_nor_on_the_chunk_size(model, queries):
    whole = ssgn.synthesize(model, queries)
    for chunk in (1, 7, 95, 96):
        assert close(ssgn.synthesize(model, queries, chunk=chunk), whole)
    assert close(ssgn.synthesize(model, queries.flip(0)), whole.flip(0))
    with_others = queries.clone()
    with_others[12:] = 1e4
    assert close(ssgn.synthesize(model, with_others)[:12], whole[:12])


def test_the_seed_decides_the_draws(model, queries):
    a, b, c = (ssgn.synthesize(model, queries, seed=s) for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.allclose(a, c)


def test_synthesizing_leaves_the_callers_random_numbers_and_the_model_alone(model, queries):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    model.train()  # a caller may have left it so; dropout must not count
    first = ssgn.synthesize(model, queries)
    assert torch.equal(first, ssgn.synthesize(model.eval(), queries))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_impossible_options_are_named(trained, fit, queries):
    single, _ = fit(decoder="single-stage", epochs=1)
    for model, options, message in (
        (trained, {"stage": "medium"}, "stage 'medium'.*coarse-to-fine"),
        (single, {"stage": "coarse"}, "stage 'coarse'.*single-stage"),
        (trained, {"draws": 0}, "draws is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ssgn.synthesize(model, queries, **options)


# The label must not leak ------------------------------------------------------------------


def test_synthesize_is_not_told_a_label():
    assert list(inspect.signature(ssgn.synthesize).parameters) == [
        "model", "sketch", "draws", "seed", "stage", "oracle", "candidates", "chunk",
    ]  # fmt: skip


def test_queries_do_not_depend_on_their_labels(model, world, monkeypatch):
    """With the unseen sketches' labels and word vectors permuted, the queries that reach the metric
    are bit for bit the same."""
    caught = []
    monkeypatch.setattr(retrieval, "evaluate", lambda q, *a, **k: caught.append(q) or {})
    feats, unseen = world.feats, world.feats.sketch_unseen
    labels = feats.sketch_labels.clone()
    labels[unseen] = labels[unseen].flip(0)
    ssgn.evaluate_unseen(model, feats, semantics=world.sem)
    other = dataclasses.replace(feats, sketch_labels=labels)
    ssgn.evaluate_unseen(model, other, semantics=world.sem.flip(0))
    assert torch.equal(*caught)


def test_an_oracle_goes_with_an_oracle_model_only(trained, oracle, fit, queries, world):
    single, _ = fit(decoder="single-stage", condition="oracle", epochs=1)
    zeros = torch.zeros(len(queries), 6)
    for call, message in (
        (lambda: ssgn.synthesize(trained, queries, oracle=zeros), "condition='oracle'.*'convex'"),
        (lambda: ssgn.synthesize(single, queries, oracle=zeros), "single-stage"),
        (lambda: ssgn.synthesize(oracle, queries), "oracle"),
        (lambda: ssgn.evaluate_unseen(oracle, world.feats), "oracle"),
        (lambda: ssgn.synthesize(oracle, queries, oracle=zeros[1:]), r"\(95, 6\) for 96"),
        (lambda: ssgn.synthesize(oracle, queries, oracle=zeros[:, 1:]), "one row of 6"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_candidates_make_the_condition_an_average_of_their_word_vectors(fit, queries, world):
    model, _ = fit(condition="regression", epochs=1)
    x, words = model.sketch_input(queries), world.sem[world.feats.unseen]
    s = model.standardize_semantics(words)
    cosine = F.normalize(model.condition(x), dim=1) @ F.normalize(s, dim=1).T
    weights = (cosine / 0.1).softmax(1)
    assert close(retrieval.named(model, x, words), weights)
    z = torch.randn(1, 4, generator=torch.Generator().manual_seed(0)).expand(len(x), -1)
    got = ssgn.synthesize(model, queries, draws=1, candidates=words)
    assert close(got, model.decode(z, x, weights @ s)[0])
    unseen = world.feats.part("unseen")
    want = ssgn.evaluate(
        ssgn.synthesize(model, queries, candidates=words),
        ssgn.embed(model, unseen.photo),
        unseen.sketch_labels,
        unseen.photo_labels,
        (5, 10),
    )
    assert ssgn.evaluate_unseen(model, world.feats, candidates=words) == want


def test_candidates_need_a_model_with_a_word_vector_as_its_condition(fit, queries, world):
    single, _ = fit(decoder="single-stage", epochs=1)
    contrastive, _ = fit(condition="contrastive", epochs=1)
    for model in (single, contrastive):
        with pytest.raises(ValueError, match="candidates need a two-stage model"):
            ssgn.synthesize(model, queries, candidates=world.sem)
    model, _ = fit(condition="convex", epochs=1)
    with pytest.raises(ValueError, match="candidates have 5 numbers, the model's words 6"):
        ssgn.synthesize(model, queries, candidates=world.sem[:, :5])


def test_the_oracle_is_each_querys_own_standardized_word_vector(oracle, world, queries):
    true = world.sem[world.feats.sketch_labels[world.feats.sketch_unseen]]
    got = ssgn.synthesize(oracle, queries, draws=1, oracle=true, chunk=7)
    x, s = oracle.sketch_input(queries), oracle.standardize_semantics(true)
    z = torch.randn(1, 4, generator=torch.Generator().manual_seed(0)).expand(len(x), -1)
    assert close(got, oracle.decode(z, x, s)[0].detach())
    unseen = world.feats.part("unseen")
    want = ssgn.evaluate(
        ssgn.synthesize(oracle, queries, oracle=true),
        ssgn.embed(oracle, unseen.photo),
        unseen.sketch_labels,
        unseen.photo_labels,
        (5, 10),
    )
    assert ssgn.evaluate_unseen(oracle, world.feats, semantics=world.sem) == want


# Evaluating -------------------------------------------------------------------------------


def test_evaluating_is_all_unseen_sketches_against_all_unseen_photos(model, world):
    feats = world.feats
    # The last 8 of 32 classes, 12 sketches and 5 photos each.
    want = ssgn.evaluate(
        ssgn.synthesize(model, feats.sketch[-96:]),
        ssgn.embed(model, feats.photo[-40:]),
        feats.sketch_labels[-96:],
        feats.photo_labels[-40:],
        ks=(5, 10),
    )
    assert ssgn.evaluate_unseen(model, feats, ks=(5, 10)) == pytest.approx(want)
    assert retrieval.evaluate_all(model, feats.part("unseen")) == pytest.approx(want)
    each = ssgn.evaluate_unseen(model, feats, (5,), per_query=True)
    assert each["P@5"].shape == (96,) and float(each["P@5"].mean()) == pytest.approx(want["P@5"])


def test_the_coarse_stage_can_be_evaluated(trained, world):
    coarse = ssgn.evaluate_unseen(trained, world.feats, stage="coarse")
    assert coarse != ssgn.evaluate_unseen(trained, world.feats)
    assert coarse == retrieval.evaluate_all(trained, world.feats.part("unseen"), stage="coarse")


def test_features_that_are_not_the_models_are_not_evaluated(trained, world):
    other = dataclasses.replace(world.feats, provenance={"backbone": "resnet18"})
    with pytest.raises(FeatureError, match="made-up.*resnet18"):
        ssgn.evaluate_unseen(trained, other)
    with pytest.raises(ValueError, match="no unseen class"):
        ssgn.evaluate_unseen(trained, world.feats.part("seen"))
    for domain in ("sketch", "photo"):
        x = getattr(world.feats, domain).clone()
        x[-1, 20] = float("nan")
        with pytest.raises(FeatureError, match=f"{domain} features: 1 of"):
            ssgn.evaluate_unseen(trained, dataclasses.replace(world.feats, **{domain: x}))


# Beyond plain cosines -------------------------------------------------------------------------


def test_a_hub_is_ranked_lower_with_a_bank_of_queries():
    """The first item is near every query, and the second only near its own."""
    g = torch.tensor([[1.0, 0.0, 0.1], [0.7, 0.7, 0.0], [-1.0, 0.0, 0.0]])
    bank = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) * 0.3
    bank[:, 0] += 1
    q, labels = torch.tensor([[1.0, 0.38, 0.0]]), (torch.tensor([1]), torch.tensor([0, 1, 2]))
    hubs = hubness(g, bank)
    nearest = (F.normalize(g, dim=1) @ F.normalize(bank, dim=1).T).topk(10, dim=1).values
    assert torch.allclose(hubs, nearest.mean(1) / 2, atol=1e-6)
    assert hubs[0] > hubs[1] > hubs[2]
    assert ssgn.rank(q, g, 1)[1].item() == 0 and ssgn.evaluate(q, g, *labels, ())["mAP@all"] == 0.5
    scores, items = ssgn.rank(q, g, 3, hubness=hubs)
    cosines = F.normalize(q, dim=1) @ F.normalize(g, dim=1).T
    assert torch.allclose(scores[0], (cosines[0] - hubs)[items[0]], atol=1e-6)
    assert items[0, 0] == 1 and ssgn.Index(g, hubs).search(q, 1)[1].item() == 1
    assert ssgn.evaluate(q, g, *labels, (), hubness=hubs)["mAP@all"] == 1


def test_augmented_items_are_means_of_neighbors_and_queries_of_results():
    gen = torch.Generator().manual_seed(0)
    q, g = torch.randn(4, 8, generator=gen), torch.randn(30, 8, generator=gen)
    new_q, new_g = augmented(q, g, 2)
    unit_q, unit_g = F.normalize(q, dim=1), F.normalize(g, dim=1)
    near = (unit_g @ unit_g.T).topk(3, dim=1).indices
    assert near[:, 0].tolist() == list(range(30))  # each item is its own nearest neighbor
    want = unit_g[near].mean(1)
    assert torch.allclose(new_g, want, atol=1e-6)
    first = (unit_q @ F.normalize(want, dim=1).T).topk(2, dim=1).indices
    means = torch.cat([unit_q[:, None], F.normalize(want, dim=1)[first]], 1).mean(1)
    assert torch.allclose(new_q, means, atol=1e-6)


def test_unseen_classes_can_be_evaluated_with_a_bank_or_with_the_gallery(model, world):
    feats = world.feats
    plain = ssgn.evaluate_unseen(model, feats)
    bank = feats.part("train").sketch
    q = ssgn.synthesize(model, feats.sketch[feats.sketch_unseen])
    g = ssgn.embed(model, feats.photo[feats.photo_unseen])
    labels = feats.sketch_labels[feats.sketch_unseen], feats.photo_labels[feats.photo_unseen]
    hubs = hubness(g, ssgn.synthesize(model, bank))
    with_bank = ssgn.evaluate_unseen(model, feats, bank=bank)
    assert with_bank == ssgn.evaluate(q, g, *labels, (5, 10), hubness=hubs) and with_bank != plain
    used = ssgn.evaluate_unseen(model, feats, neighbors=3)
    assert used == ssgn.evaluate(*augmented(q, g, 3), *labels, (5, 10)) and used != plain


def test_a_generalized_gallery_has_the_seen_classes_too(model, world):
    feats = world.feats
    rows = feats.sketch_unseen
    want = ssgn.evaluate(
        ssgn.synthesize(model, feats.sketch[rows]),
        ssgn.embed(model, feats.photo),
        feats.sketch_labels[rows],
        feats.photo_labels,
        (5, 10),
    )
    got = ssgn.evaluate_unseen(model, feats, generalized=True)
    assert got == want and got["mAP@all"] < ssgn.evaluate_unseen(model, feats)["mAP@all"]


# What a model may be evaluated on ---------------------------------------------------------


def test_classes_that_a_model_has_met_are_not_unseen(fit, world):
    model, _ = fit(epochs=1)
    for met in (world.feats.split.validation[:2], model.classes[:2]):
        feats = world.feats.with_split(ssgn.Split(tuple(met), (), name="easy"))
        with pytest.raises(ValueError, match=f"has met classes that split easy .*: {met[0]}, "):
            ssgn.evaluate_unseen(model, feats)


@pytest.mark.parametrize(("name", "value"), [("weights", "sha256:other"), ("size", 64)])
def test_features_of_other_weights_or_another_size_are_refused(fit, world, name, value):
    about = {**world.feats.provenance, "weights": "sha256:mine", "size": 8}
    model, _ = fit(dataclasses.replace(world.feats, provenance=about), epochs=1)
    other = dataclasses.replace(world.feats, provenance={**about, name: value})
    with pytest.raises(ssgn.FeatureError, match=f"other {name} .* not {value}; .*--{name}"):
        ssgn.evaluate_unseen(model, other)
