"""Levels and ratios of runs, and their intervals."""

import numpy as np
import pytest

from ssgn import studies
from ssgn.intervals import bootstrap, level, over_seeds, ratio, ratios, shared, values, widths
from ssgn.tables import of_levels

# From the runs --------------------------------------------------------------------------------

RUNS = [
    {"variant": "a", "seed": 1, "mAP@all": 3.0, "P@5": 0.1},
    {"variant": "b", "seed": 0, "mAP@all": 2.0, "P@5": 0.2},
    {"variant": "a", "seed": 0, "mAP@all": 1.0, "P@5": 0.3},
    {"variant": "b", "seed": 1, "mAP@all": 4.0, "P@5": 0.4},
]


def test_values_come_in_the_order_of_the_seeds():
    assert values(RUNS, "a") == [1.0, 3.0] and values(RUNS, "b", "P@5") == [0.2, 0.4]
    assert values(iter(RUNS), "c") == []


def test_ratios_pair_the_seeds():
    assert ratios(RUNS, "a", "b") == [0.5, 0.75]
    assert ratios(iter(RUNS), "b", "a", "P@5") == pytest.approx([2 / 3, 4])
    assert ratios(RUNS[:3:2], "a", "b", others=RUNS) == [0.5, 0.75]
    with pytest.raises(ValueError, match=r"'a' has runs of the seeds \[0, 1\], 'b' of \[0\]"):
        ratios(RUNS[:3], "a", "b")
    with pytest.raises(ValueError, match="'c'"):
        ratios(RUNS, "c", "c")


# Intervals over splits, classes and seeds -----------------------------------------------------


def made_up(
    rng,
    variants=("a",),
    classes=60,
    seeds=3,
    parts=5,
    partitions=2,
    of_class=0.2,
    of_split=0.02,
    of_both=0.06,
):
    """Runs of known variance: every class is unseen in two of ten splits, 0.4 on average.

    ``of_both`` is how much a variant is better on some classes than on others.
    """
    height = rng.normal(0, of_class, classes)
    better = rng.normal(0, of_both, (len(variants), classes))
    runs = []
    for partition in range(partitions):
        order = rng.permutation(classes)
        for part in range(parts):
            unseen = order[part::parts]
            shared = height[unseen] + rng.normal(0, of_split)
            for seed in range(seeds):
                batch = rng.normal(0, 0.02)
                for i, name in enumerate(variants):
                    noise = rng.normal(0, 0.03, len(unseen)) + better[i, unseen]
                    value = 0.4 + shared + batch + noise + 0.04 * i
                    runs.append({"variant": name, "split": f"{partition} {part}", "seed": seed,
                                 "per_class": value * 1e4})  # fmt: skip
    return runs


@pytest.mark.parametrize("changes", [{}, {"of_class": 0.05, "of_split": 0.04}])
def test_an_interval_of_a_level_covers_the_truth(changes):
    rng, hits = np.random.default_rng(0), []
    for i in range(100):
        mean, low, high = level(made_up(rng, **changes), "a", n=300, seed=i)
        hits.append(low <= 0.4 <= high)
        assert low < mean < high
    assert 0.86 <= np.mean(hits) <= 1


@pytest.mark.parametrize("of_both", [0.0, 0.06, 0.12])
@pytest.mark.parametrize("few", [{}, {"classes": 21, "parts": 1, "partitions": 1}])
def test_an_interval_of_a_ratio_covers_the_truth(of_both, few):
    """On ten splits, and on a published one."""
    rng, hits, means = np.random.default_rng(1), [], []
    for i in range(100):
        runs = made_up(rng, ("b", "a"), of_both=of_both, **few)
        mean, low, high = ratio(runs, "a", "b", n=300, seed=i)
        hits.append(low <= 1.1 <= high)
        means.append(mean)
    assert np.mean(hits) >= 0.86
    assert np.mean(means) == pytest.approx(1.1, abs=0.03)


def test_a_trained_variant_with_a_single_seed_is_paired_and_a_closed_form_is_not():
    runs = made_up(np.random.default_rng(0), ("a", "b"), classes=10)
    one = [{**r, "best_epoch": 3} for r in closed(runs, "b")]
    assert shared(runs, "a", "b") == (runs, True)
    kept, paired = shared(one, "a", "b")
    assert paired and {run["seed"] for run in kept} == {0}
    _, low, high = over_seeds(one, "a", "b")
    assert np.isnan([low, high]).all()
    kept, paired = shared(closed(runs, "b"), "a", "b")
    assert not paired and {r["seed"] for r in kept if r["variant"] == "a"} == {0, 1, 2}
    assert np.isfinite(over_seeds(kept, "a", "b")).all()


def test_resampling_is_repeatable_and_gives_back_what_does_not_vary():
    runs = [{**run, "per_class": [2500] * 12} for run in made_up(np.random.default_rng(0))]
    assert level(runs, "a", n=50) == pytest.approx((0.25,) * 3)
    runs = made_up(np.random.default_rng(0), ("a", "b"))
    assert ratio(runs, "a", "b", n=50) == ratio(iter(runs), "a", "b", n=50)
    assert np.isfinite(level([r for r in runs if r["split"] == "0 0"], "a", n=50)).all()
    assert bootstrap(runs, ["a", "b"], n=20).shape == (20, 2)


def closed(runs, name):
    """The runs, with one seed of a variant, as of a closed form."""
    return [run for run in runs if run["variant"] != name or run["seed"] == 0]


def test_an_interval_of_a_ratio_to_a_closed_form_covers_the_truth():
    rng, hits = np.random.default_rng(2), []
    for i in range(100):
        runs = closed(made_up(rng, ("b", "a")), "b")
        mean, low, high = ratio(runs, "a", "b", n=300, seed=i)
        hits.append(low <= 1.1 <= high)
        assert low < mean < high
    assert 0.86 <= np.mean(hits) <= 1


def test_an_interval_over_seeds_covers_the_mean_of_seeds_on_the_same_splits_and_classes():
    """It is narrower than the one over splits and classes too, which it does not speak of."""
    rng, hits, widths = np.random.default_rng(3), [], []
    for _ in range(200):
        runs = [{"variant": "a", "split": split, "seed": seed,
                         "per_class": (0.3 + 0.2 * split + rng.normal(0, 0.03, 12)) * 1e4}
                        for split in (0, 1) for seed in range(3)]  # fmt: skip
        mean, low, high = over_seeds(runs, "a")
        assert mean == pytest.approx(level(runs, "a", n=20)[0]) and low < mean < high
        hits.append(low <= 0.4 <= high)
        widths.append([high - low, np.ptp(level(runs, "a", n=200)[1:])])
    assert 0.9 <= np.mean(hits) < 1
    assert np.mean(widths, 0)[0] < np.mean(widths, 0)[1]


def test_widths_are_those_of_both_intervals():
    runs = [
        {
            "variant": v,
            "split": p,
            "seed": s,
            "per_class": [3000 + 90 * c + 7 * s + h for c in range(5)],
        }
        for v, h in (("a", 400), ("b", 0))
        for p in "pq"
        for s in (0, 1)
    ]
    for b, of in ((None, level(runs[:4], "a")), ("b", ratio(runs, "a", "b"))):
        _, bottom, top = over_seeds(runs, "a", b)
        assert widths(runs, "a", b) == (of[0], (top - bottom) / 2, (of[2] - of[1]) / 2)


def test_seeds_are_divided_one_by_one_or_by_the_only_one():
    runs = [
        {"variant": name, "split": split, "seed": seed, "per_class": [1000 * value] * 5}
        for split in "xy"
        for name, values in (("a", (2, 3, 4)), ("b", (1, 2, 4)))
        for seed, value in enumerate(values)
    ]
    mean, low, high = over_seeds(runs, "a", "b")
    assert mean == pytest.approx(1.5) and high - mean == pytest.approx(mean - low) and low < 1
    assert over_seeds(closed(runs, "b"), "a", "b")[0] == pytest.approx(3)
    assert over_seeds(closed(runs, "b"), "b", "a")[0] == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)
    mean, low, high = over_seeds(closed(runs, "b"), "b")
    assert mean == pytest.approx(0.1) and np.isnan([low, high]).all()
    # A seed that a split lacks is left out.
    assert over_seeds(runs[:-1], "b")[0] == pytest.approx(0.15)
    with pytest.raises(ValueError, match="'a' and 'c': no seed was run on every split"):
        over_seeds(runs, "a", "c")


def test_levels_and_ratios_without_leaked_classes_have_per_class_numbers_of_their_own():
    runs = made_up(np.random.default_rng(0), ("a", "b"))
    key = "per_class" + studies.WITHOUT_LEAKS
    few = [r if r["split"] < "1" else {**r, key: r["per_class"][:6] / 2} for r in runs]
    halves = [{**r, "per_class": r[key]} for r in few if key in r]
    for read in (
        lambda runs, **options: level(runs, "a", n=50, **options),
        lambda runs, **options: ratio(runs, "a", "b", n=50, **options),
        lambda runs, **options: over_seeds(runs, "a", "b", **options),
        lambda runs, **options: of_levels({"x": runs}, n=50, **(options)),
        lambda runs, **options: bootstrap(runs, ["a", "b"], n=50, **options).tolist(),
    ):
        assert read(few, setting=studies.WITHOUT_LEAKS) == read(halves) != read(few)
    with pytest.raises(ValueError, match="'a': no runs with .* without leaked classes, .* record"):
        level(runs, "a", setting=studies.WITHOUT_LEAKS)


def test_variants_are_compared_on_the_splits_and_seeds_of_both():
    runs = made_up(np.random.default_rng(0), ("a", "b", "closed"))
    keys = {(r["split"], r["seed"]) for r in runs}
    less = [r for r in runs if r["variant"] != "b" or (r["split"] > "1" and r["seed"])]
    some, paired = shared(iter(less), "a", "b")
    want = sorted(key for key in keys if key[0] > "1" and key[1])
    assert paired and sorted((r["split"], r["seed"]) for r in some if r["variant"] == "a") == want
    assert ratio(some, "a", "b", n=20) == ratio(less, "a", "b", n=20)
    some, paired = shared(closed(less, "closed"), "closed", "a")
    assert not paired and len(some) == len(keys) * 4 / 3
    some, paired = shared(closed(less, "closed"), "closed", "b")
    assert not paired and {r["split"] for r in some} == {split for split, _ in want}
    assert shared([r for r in less if r["variant"] != "a" or r["split"] < "1"], "a", "b")[0] == []
    assert shared(less, "a", "c")[0] == []


def test_variants_that_cannot_be_compared_are_named():
    runs = made_up(np.random.default_rng(0), ("a", "b"))
    with pytest.raises(ValueError, match="'c': no runs with the average precision of each"):
        level(runs, "c")
    apart = [r for r in runs if (r["variant"] == "a") == (r["split"] > "1")]
    with pytest.raises(ValueError, match="'a' and 'b': .* none on the same split"):
        ratio(apart, "a", "b")


def test_crossed_classes_widen_an_interval_where_classes_recur():
    """Two partitions of 20 classes: every class is unseen twice, with nearly the same precision."""
    rng = np.random.default_rng(0)
    of_class, runs = rng.normal(3000, 900, 20), []
    for partition in range(2):
        order = rng.permutation(20)
        for part in range(4):
            classes = sorted(order[part::4])
            for seed in range(2):
                precision = of_class[classes] + rng.normal(0, 30, 5)
                about = {"variant": "a", "split": f"{partition} {part}", "seed": seed}
                unseen = [f"c{c:02}" for c in classes]
                runs.append({**about, "per_class": precision.tolist(), "unseen": unseen})
    runs += [{**r, "variant": "b", "per_class": [x / 2 for x in r["per_class"]]} for r in runs]
    plain, crossed = level(runs, "a"), level(runs, "a", crossed=True)
    assert plain[0] == crossed[0] == pytest.approx(of_class.mean() * 1e-4, abs=0.002)
    widths = [high - low for _, low, high in (plain, crossed)]
    assert 1.05 < widths[1] / widths[0] < 1.6
    mean = 3.92 * of_class.std() * 1e-4 / 20**0.5  # of 20 independent classes
    assert 0.8 < widths[0] / mean < 1.25
    assert ratio(runs, "a", "b", crossed=True) == pytest.approx((2, 2, 2))
