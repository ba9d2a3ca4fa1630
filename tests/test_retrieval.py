"""From sketches to rankings, and what a query must not depend on."""

import dataclasses
import inspect

import pytest
import torch

import ssgn
from ssgn import retrieval
from ssgn.model import DECODERS


@pytest.fixture(scope="module")
def queries(world):
    return world.feats.sketch[world.feats.sketch_unseen]


@pytest.fixture(scope="module", params=DECODERS)
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


def test_it_is_the_mean_over_draws_of_the_decoder(model, queries):
    """By hand, one sketch and one latent at a time, with latents of the documented seed."""
    x = model.sketch_input(queries[:3])
    latents = torch.randn(5, 4, generator=torch.Generator().manual_seed(9))
    want = []
    for row in x:
        total = 0
        for z in latents:
            if model.config.decoder == "single-stage":
                total += model.decoder(torch.cat([z, row])[None])[0]
            else:
                s = model.semantic_head(row[None]).softmax(1) @ model.words
                c = model.coarse_decoder(torch.cat([z[None], s], 1))
                total += model.fine_decoder(torch.cat([c, row[None]], 1))[0]
        skipped = model.gain * row if model.config.skip else 0
        want.append(total / 5 + skipped)
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


@pytest.mark.parametrize("chunk", [1, 7, 95, 96])
def test_the_chunk_size_does_not_matter(model, queries, chunk):
    assert close(ssgn.synthesize(model, queries, chunk=chunk), ssgn.synthesize(model, queries))


def test_a_query_does_not_depend_on_the_others(model, queries):
    whole = ssgn.synthesize(model, queries)
    assert close(ssgn.synthesize(model, queries[11:12]), whole[11:12])
    assert close(ssgn.synthesize(model, queries.flip(0)), whole.flip(0))
    with_strangers = queries.clone()
    with_strangers[12:] = 1e4
    assert close(ssgn.synthesize(model, with_strangers)[:12], whole[:12])


def test_the_seed_of_the_draws(model, queries):
    a, b, c = (ssgn.synthesize(model, queries, seed=s) for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.allclose(a, c)


def test_synthesizing_leaves_the_callers_randomness_and_the_model_alone(model, queries):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    model.train()  # a caller may have left it so; dropout must not count
    first = ssgn.synthesize(model, queries)
    assert torch.equal(first, ssgn.synthesize(model.eval(), queries))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_no_sketches_give_no_features(model):
    assert ssgn.synthesize(model, torch.empty(0, 24)).shape == (0, 16)


def test_no_stage_of_that_name(trained, fit, queries):
    with pytest.raises(ValueError, match="stage 'medium'.*coarse-to-fine"):
        ssgn.synthesize(trained, queries, stage="medium")
    with pytest.raises(ValueError, match="stage 'coarse'.*single-stage"):
        ssgn.synthesize(fit(decoder="single-stage", epochs=1)[0], queries, stage="coarse")


# The label must not leak ------------------------------------------------------------------


def test_synthesize_is_not_told_a_label():
    assert list(inspect.signature(ssgn.synthesize).parameters) == [
        "model", "sketch", "draws", "seed", "stage", "oracle", "chunk",
    ]  # fmt: skip


def test_queries_are_the_same_whatever_their_labels(model, world, monkeypatch):
    """Catch what reaches the metric: with the unseen sketches' labels permuted, and other word
    vectors, the queries are bit for bit what they were."""
    caught = []
    monkeypatch.setattr(retrieval, "evaluate", lambda q, *a, **k: caught.append(q) or {})
    feats, unseen = world.feats, world.feats.sketch_unseen
    labels = feats.sketch_labels.clone()
    labels[unseen] = labels[unseen].flip(0)
    retrieval.evaluate_unseen(model, feats, semantics=world.sem)
    other = dataclasses.replace(feats, sketch_labels=labels)
    retrieval.evaluate_unseen(model, other, semantics=world.sem.flip(0))
    assert torch.equal(*caught)


def test_an_oracle_for_a_model_that_predicts(model, queries):
    with pytest.raises(ValueError, match="condition='oracle'.*'convex'"):
        ssgn.synthesize(model, queries, oracle=torch.zeros(len(queries), 6))


def test_an_oracle_model_without_the_oracle(oracle, queries, world):
    with pytest.raises(ValueError, match="oracle"):
        ssgn.synthesize(oracle, queries)
    with pytest.raises(ValueError, match="oracle"):
        ssgn.evaluate_unseen(oracle, world.feats)


def test_a_single_stage_model_has_no_use_for_an_oracle(fit, queries):
    model, _ = fit(decoder="single-stage", condition="oracle", epochs=1)
    with pytest.raises(ValueError, match="single-stage"):
        ssgn.synthesize(model, queries, oracle=torch.zeros(len(queries), 6))


def test_the_oracle_is_each_querys_own_standardised_word_vector(oracle, world, queries):
    labels = world.feats.sketch_labels[world.feats.sketch_unseen]
    got = ssgn.synthesize(oracle, queries, draws=1, oracle=world.sem[labels], chunk=7)
    x, s = oracle.sketch_input(queries), oracle.standardise_semantics(world.sem[labels])
    z = torch.randn(1, 4, generator=torch.Generator().manual_seed(0)).expand(len(x), -1)
    assert close(got, oracle.decode(z, x, s)[0].detach())
    figures = ssgn.evaluate_unseen(oracle, world.feats, semantics=world.sem)
    assert set(figures) == set(ssgn.evaluate_unseen(oracle, world.feats, semantics=world.sem))


@pytest.mark.parametrize("rows", [95, 97])
def test_an_oracle_of_another_number_of_rows(oracle, queries, rows):
    with pytest.raises(ValueError, match=rf"{rows}.*96|96.*{rows}"):
        ssgn.synthesize(oracle, queries, oracle=torch.zeros(rows, 6))


def test_what_is_synthesized_can_go_through_the_models_own_layers(model, queries):
    model.regressor(ssgn.synthesize(model, queries))


def test_no_draws(model, queries):
    with pytest.raises(ValueError, match="draws"):
        ssgn.synthesize(model, queries, draws=0)


# Ranking and evaluating -------------------------------------------------------------------


def test_rank_by_cosine():
    q = torch.tensor([[3.0, 0.0], [0.0, 0.1]])
    g = torch.tensor([[0.0, 9.0], [1.0, 1.0], [0.5, 0.0], [-1.0, 0.0]])
    similarity, items = ssgn.rank(q, g, 3)
    assert items.tolist() == [[2, 1, 0], [0, 1, 2]]  # 3 is as far as 2, and comes later
    assert similarity[:, :2].tolist() == [
        pytest.approx([1, 0.5**0.5]),
        pytest.approx([1, 0.5**0.5]),
    ]


def test_rank_of_a_gallery_smaller_than_k():
    assert ssgn.rank(torch.ones(2, 3), torch.ones(4, 3), 10)[1].shape == (2, 4)


def test_rank_of_an_empty_gallery():
    with pytest.raises(ValueError, match="gallery is empty"):
        ssgn.rank(torch.ones(2, 3), torch.empty(0, 3), 10)


def test_unseen_evaluation_is_all_unseen_sketches_against_all_unseen_photos(model, world):
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


def test_features_of_another_backbone_are_not_evaluated(model, world):
    other = dataclasses.replace(world.feats, provenance={"backbone": "resnet18"})
    with pytest.raises(ssgn.FeatureError, match="made-up.*resnet18"):
        ssgn.evaluate_unseen(model, other)


@pytest.mark.parametrize("domain", ["sketch", "photo"])
def test_nan_in_unseen_features_is_named(model, world, domain):
    x = getattr(world.feats, domain).clone()
    x[-1, 20] = float("nan")
    with pytest.raises(ssgn.FeatureError, match=f"{domain} features: 1 of"):
        ssgn.evaluate_unseen(model, dataclasses.replace(world.feats, **{domain: x}))
