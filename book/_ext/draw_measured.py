"""What the page *Draw and search* says of its models, in numbers and in words that follow them.

The numbers are measured on the test sketches, those of the unseen classes, when the page's files
are made.
"""

import math

USUALLY = 0.8  # share of right first images that the similarity looked for must reach
FEWEST = 20  # sketches that must reach it, or the share is luck


def first_images(model, feats) -> dict:
    """The first image of every test sketch, and how similar it is to it.

    ``score``, ``found`` and ``label`` are of the sketches of the unseen classes. ``others`` are the
    scores of sketches of the validation classes: no image of the gallery shows them, and no model
    was trained on them.
    """
    import ssgn

    test = feats.part("unseen")
    gallery = ssgn.embed(model, test.photo)

    def first(sketch):
        score, item = ssgn.rank(ssgn.synthesize(model, sketch), gallery, k=1)
        return score[:, 0], test.photo_labels[item[:, 0]]

    score, found = first(test.sketch)
    others, _ = first(feats.part("validation").sketch)
    return {"score": score, "found": found, "label": test.sketch_labels, "others": others}


def trusted(first: dict) -> dict:
    """The similarity from which a first image is usually right, and how often it then is.

    Of the test sketches with an even index, at least :data:`FEWEST` reach this similarity, and
    :data:`USUALLY` of these or more find a right image first; it is the lowest for which that
    holds. All else is measured on the sketches with an odd index. The similarity is None if there
    is none, or if most of the first images that reach it are wrong on that other half.
    """
    import torch

    score, right = first["score"], (first["found"] == first["label"]).float()
    ordered, by = score[::2].sort(descending=True)
    share = right[::2][by].cumsum(0) / torch.arange(1, len(ordered) + 1)
    enough = [n for n, x in enumerate(share.tolist()) if n + 1 >= FEWEST and x >= USUALLY]
    score, right = score[1::2], right[1::2]
    found = {"similarity": None, "of": len(score), "right": float(right.mean())}
    if not enough:
        return found
    limit = float(ordered[enough[-1]])
    above = score >= limit
    if not 0 < above.sum() < len(above) or right[above].mean() <= 0.5:
        return found
    return {
        "similarity": limit,
        "of": len(score),
        "reach": int(above.sum()),
        "right": float(right[above].mean()),
        "right_below": float(right[~above].mean()),
        "others": len(first["others"]),
        "others_reach": float((first["others"] >= limit).float().mean()),
    }


def verdicts(trust: dict) -> list[list[str]]:
    """Verdict and reason for a first image below the similarity, and for one that reaches it."""
    right = "the first image was right for {:.0%} of test sketches."
    if trust["similarity"] is None:
        why = f"No threshold makes {USUALLY:.0%} of the first images right; overall, "
        verdict = "for this model it does not tell whether the match is right"
        return [[verdict, why + f"{trust['right']:.0%} are."]] * 2
    limit, below = f"{trust['similarity']:.2f}", trust["right_below"]
    low = "often wrong; perhaps it is none of these classes" if below < 0.5 else "less sure"
    high = "usually right" if trust["right"] >= 2 / 3 else "right more often than not"
    return [
        [low, f"Below {limit}, {right.format(below)}"],
        [high, f"From {limit} on, {right.format(trust['right'])}"],
    ]


def by_success(first: dict, classes: list[str]) -> list[str]:
    """The classes, by the share of their sketches that find a right image first, highest first."""
    right = (first["found"] == first["label"]).float()
    share = [float(right[first["label"] == c].mean()) for c in range(len(classes))]
    return [classes[c] for c in sorted(range(len(classes)), key=lambda c: -share[c])]


def named_alike(one: dict, other: dict, words) -> tuple[float, float]:
    """How much closer in name the first model's mistakes are than the second's, with its interval.

    Of a wrong first image it takes the cosine between the word vectors of its class and of the
    sketch's; the interval is over classes.
    """
    from torch.nn.functional import normalize

    from ssgn.metrics import interval

    cosines = normalize(words, dim=1) @ normalize(words, dim=1).T

    def closeness(first, c):
        found = first["found"][first["label"] == c]
        return cosines[c, found[found != c]].mean()

    gained = [float(closeness(one, c) - closeness(other, c)) for c in range(len(words))]
    return interval([x for x in gained if not math.isnan(x)])


def trust_sentences(trust: dict) -> str:
    of, right = trust["of"], trust["right"]
    if trust["similarity"] is None:
        return (
            f"There is no such similarity. Of the other half, {of} sketches, {right:.0%} find a "
            "right image first, whatever the similarity."
        )
    return (
        f"It is {trust['similarity']:.2f}. Of the other half, {trust['reach']} of {of} sketches "
        f"reach it, and {right:.0%} of these are right; of the rest {trust['right_below']:.0%} "
        f"are. Of {trust['others']} sketches of other classes, for which no image can be right, "
        f"{trust['others_reach']:.0%} reach it too."
    )


def named_alike_sentence(gained: float, half: float) -> str:
    number = f"the cosine of the word vectors differs by {gained:+.3f} ± {half:.3f}"
    if not abs(gained) > half:  # nor where the interval of one class is NaN
        return f"no difference can be detected: {number}"
    return f"they are called {'more' if gained > 0 else 'less'} alike with coarse-to-fine: {number}"
