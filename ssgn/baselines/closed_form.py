"""Baselines that learn nothing, or that are solved without gradient descent.

The chapter *What reproduces* explains each of them.
"""

import warnings
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from ..features import ArrayLike, Features, word_vectors
from ..model import Standardize
from ..train import History, class_means
from .protocol import Baseline, Inputs, choose

PCA_COLUMNS = 256  # of CCA, per domain; fewer if there are fewer rows or columns
PAIRS = 5  # of CCA: how many times each sketch is paired with a random photo of its class


def nearest_neighbor(
    feats: Features,
    sem: ArrayLike | None = None,
    taps: str | Sequence[str] = "fusion",
    *,
    standardized: bool = True,
    **run,
) -> tuple[Baseline, History]:
    """Compare the features of sketches and photos directly; nothing is learned [O].

    The chapter *What reproduces* explains it.

    Args:
        feats: features of C classes.
        sem: not used; every method takes it.
        taps: ``"fusion"``, ``"single"``, a tap's name or a list of names.
        standardized: standardize each column over the training classes, per domain; False compares
            raw features.
        run: ``seed``, ``device`` and ``progress``, see ``ssgn.baselines.protocol.choose``.

    Raises:
        ValueError: unknown taps, no class to train on, or a training class without images.
        FeatureError: NaN or infinity.
    """

    def prepare(device):
        inputs = Inputs(feats, taps, standardized, device)
        return lambda: Baseline(inputs.sketch, inputs.photo)

    return choose("nearest neighbor", feats, prepare, [{}], **run)


def ridge(
    feats: Features,
    sem: ArrayLike | None = None,
    taps: str | Sequence[str] = "fusion",
    *,
    strengths: Sequence[float] = (1e2, 1e3, 1e4, 1e5),
    identity: bool = False,
    **run,
) -> tuple[Baseline, History]:
    """Regress the mean photo features of a sketch's class from the sketch, in closed form [O].

    The regression is linear, with a squared penalty on the weights. The chapter *What reproduces*
    explains it.

    With ``identity``, the penalty is on what the weights change, ``|W - I|^2``: a strong one leaves
    the sketch's own features, as the skip connection of SSGN does, and not zero.

    Args:
        feats: features of C classes.
        sem: not used; every method takes it.
        taps: ``"fusion"``, ``"single"``, a tap's name or a list of names.
        strengths: of the penalty, to choose from.
        identity: penalize the distance from the identity.
        run: ``seed``, ``device`` and ``progress``, see ``ssgn.baselines.protocol.choose``.

    Raises:
        ValueError: unknown taps, no class to train on, a training class without images, or
            equations that cannot be solved.
        FeatureError: NaN or infinity.
    """

    def prepare(device):
        inputs = Inputs(feats, taps, True, device)
        x, target = inputs.x, class_means(inputs.v, inputs.count)[inputs.x_labels]
        gram, right, eye = x.T @ x, x.T @ target, torch.eye(x.shape[1], device=x.device)

        def at(strength: float) -> Baseline:
            wanted = right + strength * eye if identity else right
            weights = torch.linalg.solve(gram + strength * eye, wanted)
            return Baseline(lambda s: inputs.sketch(s) @ weights, inputs.photo)

        return at

    trials = [{"strength": s} for s in strengths]
    return choose("ridge", feats, prepare, trials, **run)


def cca(
    feats: Features,
    sem: ArrayLike | None = None,
    taps: str | Sequence[str] = "fusion",
    *,
    seed: int = 0,
    components: Sequence[int] = (8, 16, 32, 64),
    **run,
) -> tuple[Baseline, History]:
    """Fit canonical correlation analysis: projections in which a sketch and a photo correlate [O].

    Hotelling, Relations Between Two Sets of Variates, Biometrika 1936; for retrieval across domains
    Rasiwasia et al., A New Approach to Cross-Modal Multimedia Retrieval, ACM Multimedia 2010. Both
    steps are scikit-learn's, on the CPU: a PCA of each domain, then CCA on pairs of a sketch and a
    random photo of its class. The chapter *What reproduces* explains it.

    Args:
        feats: features of C classes.
        sem: not used; every method takes it.
        taps: ``"fusion"``, ``"single"``, a tap's name or a list of names.
        seed: of the pairs and of the PCA.
        components: numbers of canonical components, to choose from; none above the number of
            columns after the PCA.
        run: ``device`` and ``progress``, see ``ssgn.baselines.protocol.choose``.

    Raises:
        ValueError: unknown taps, no class to train on, a training class without images, or less
            than one component.
        FeatureError: NaN or infinity.
    """
    if min(components) < 1:
        raise ValueError(f"cca: components are {tuple(components)}; all must be at least 1")

    def prepare(device):
        inputs = Inputs(feats, taps, True, device)
        generator = torch.Generator(device=inputs.device).manual_seed(int(seed))
        of_x, of_v = (_whitening(rows, PCA_COLUMNS, seed) for rows in (inputs.x, inputs.v))
        xs, vs = [], []
        for _ in range(PAIRS):
            x, v, _ = next(inputs.batches(len(inputs.x), generator))  # every sketch, in one batch
            xs.append(x @ of_x)
            vs.append(v @ of_v)
        x, v = torch.cat(xs), torch.cat(vs)
        to_x, to_v = _canonical(x, v, max(components))
        w, u, x_mean, v_mean = of_x @ to_x, of_v @ to_v, x.mean(0) @ to_x, v.mean(0) @ to_v

        def at(components: int) -> Baseline:
            # Components are found one after the other, so fewer are the first of more.
            return Baseline(
                lambda s: (inputs.sketch(s) @ w - x_mean)[:, :components],
                lambda p: (inputs.photo(p) @ u - v_mean)[:, :components],
            )

        return at

    return choose("cca", feats, prepare, [{"components": n} for n in components], seed=seed, **run)


def _whitening(x: Tensor, width: int, seed: int) -> Tensor:
    """Return the map ``[d, p]`` of rows ``[N, d]`` to their principal components of variance 1."""
    pca = PCA(min(width, *x.shape), random_state=int(seed)).fit(x.cpu().numpy())
    variance = pca.explained_variance_
    kept = variance > 1e-8 * variance[0]  # the others are rounding errors
    weights = pca.components_[kept].T / np.sqrt(variance[kept])
    return torch.as_tensor(weights, dtype=x.dtype, device=x.device)


def _canonical(x: Tensor, v: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Return the maps ``[p, n]`` and ``[q, n]`` of paired rows to their canonical components.

    Args:
        x, v: ``[N, p]`` and ``[N, q]``, one pair per row.
        components: limit on their number, n.
    """
    p, both = x.shape[1], torch.cat([x, v], 1).double()
    # CCA depends on its rows only through their means and covariances. R of the QR decomposition
    # with -R below it has those of the centered rows, up to a factor, in at most 2 (p + q) rows:
    # scikit-learn then takes seconds and not a minute for thousands of sketches.
    r = torch.linalg.qr(both - both.mean(0), mode="r").R.cpu().numpy()
    rows = np.concatenate([r, -r])
    model = CCA(min(components, p, v.shape[1]), scale=False)
    with warnings.catch_warnings():
        # It iterates slowly where two correlations are nearly equal. Any rotation of such a pair of
        # components is as good, so one that has not converged loses nothing in retrieval.
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            model.fit(rows[:, :p], rows[:, p:])
        except np.linalg.LinAlgError:
            # LAPACK's fast SVD gives up on some matrices with nearly equal singular values, as
            # whitened rows have them; on the same rows in another order it does not.
            model.fit(rows[::-1, :p], rows[::-1, p:])
    return tuple(
        torch.as_tensor(w, dtype=x.dtype, device=x.device)
        for w in (model.x_rotations_, model.y_rotations_)
    )


def eszsl(
    feats: Features,
    sem: ArrayLike,
    taps: str | Sequence[str] = "fusion",
    *,
    gammas: Sequence[float] = (1e-1, 1e0, 1e1, 1e2),
    lambdas: Sequence[float] = (1e-1, 1e0, 1e1),
    **run,
) -> tuple[Baseline, History]:
    """Fit ESZSL, a bilinear map between features and class vectors, in closed form [C].

    Romera-Paredes and Torr, An Embarrassingly Simple Approach to Zero-Shot Learning, ICML 2015.
    With features X ``[N, d]``, class vectors S ``[C, a]`` and labels Y ``[N, C]`` of +1 for a row's
    own class and -1 elsewhere, W minimizes
    ``|X W S' - Y|² + gamma |W S'|² + lambda |X W|² + gamma lambda |W|²``:
    ``W = (X'X + gamma I)⁻¹ X'Y S (S'S + lambda I)⁻¹``.

    ESZSL classifies images, and it is not known how the published tables made it retrieve. Here one
    W is learned for sketches and one for photos, and the vectors X W that they predict are compared
    [O]. The chapter *What reproduces* explains it.

    Args:
        feats: features of C classes.
        sem: ``[C, a]`` word vectors; they are standardized over the training classes [O].
        taps: ``"fusion"``, ``"single"``, a tap's name or a list of names.
        gammas, lambdas: penalties to choose from, as multiples of the mean diagonal entry of X'X
            and of S'S, so that one grid fits both domains [O].
        run: ``seed``, ``device`` and ``progress``, see ``ssgn.baselines.protocol.choose``.

    Raises:
        ValueError: unknown taps, word vectors that do not fit, no class to train on, a training
            class without images, or equations that cannot be solved.
        FeatureError: NaN or infinity.
    """

    def prepare(device):
        inputs = Inputs(feats, taps, True, device)
        s = _class_vectors(feats, sem, inputs.device)

        of_sketch, of_photo = (
            eszsl_solver(x, 2.0 * F.one_hot(labels, len(s)) - 1, s)
            for x, labels in ((inputs.x, inputs.x_labels), (inputs.v, inputs.v_labels))
        )

        def at(gamma: float, lambda_: float) -> Baseline:
            of_x, of_v = of_sketch(gamma, lambda_), of_photo(gamma, lambda_)
            return Baseline(lambda x: inputs.sketch(x) @ of_x, lambda v: inputs.photo(v) @ of_v)

        return at

    trials = [{"gamma": g, "lambda_": k} for g, k in product(gammas, lambdas)]
    return choose("eszsl", feats, prepare, trials, **run)


def eszsl_solver(x: Tensor, y: Tensor, s: Tensor) -> Callable[[float, float], Tensor]:
    """Prepare :func:`eszsl` for any penalties, with two eigendecompositions.

    Both matrices that get a penalty are symmetric. In the bases of their eigenvectors the penalties
    only shift eigenvalues, so each further pair costs one division and two products.

    Args:
        x: ``[N, d]`` features.
        y: ``[N, C]``, +1 and -1.
        s: ``[C, a]`` class vectors.

    Returns:
        A function from gamma and lambda to W ``[d, a]``.

    Raises:
        torch.linalg.LinAlgError: the equations cannot be solved.
    """
    e, u = torch.linalg.eigh(x.T @ x)
    f, t = torch.linalg.eigh(s.T @ s)
    right = u.T @ (x.T @ y @ s) @ t

    def at(gamma: float, lambda_: float) -> Tensor:
        shifted = (e + gamma * e.mean())[:, None] * (f + lambda_ * f.mean())
        w = u @ (right / shifted) @ t.T
        if not w.isfinite().all():
            raise torch.linalg.LinAlgError("the solution is not finite")
        return w

    return at


def sae(
    feats: Features,
    sem: ArrayLike,
    taps: str | Sequence[str] = "fusion",
    *,
    lambdas: Sequence[float] = (1e-2, 1e-1, 1e0, 1e1),
    **run,
) -> tuple[Baseline, History]:
    """Fit SAE, a linear autoencoder whose hidden layer is the class vector, in closed form [C].

    Kodirov, Xiang and Gong, Semantic Autoencoder for Zero-Shot Learning, CVPR 2017. With one
    example per column, X ``[d, N]`` and their class vectors S ``[a, N]``, the tied weights W
    ``[a, d]`` minimize ``|X - W'S|² + lambda |WX - S|²``, which gives a Sylvester equation:
    ``SS' W + W lambda XX' = (1 + lambda) S X'``.

    One W is learned for sketches and one for photos, and the word vectors WX of both are compared
    [O]. Decoding a sketch's word vector into photo features with the photos' W' was worse on
    pseudo-unseen classes, with every lambda and with a single layer or fusion. The chapter *What
    reproduces* explains it.

    Args:
        feats: features of C classes.
        sem: ``[C, a]`` word vectors; they are standardized over the training classes [O].
        taps: ``"fusion"``, ``"single"``, a tap's name or a list of names.
        lambdas: to choose from.
        run: ``seed``, ``device`` and ``progress``, see ``ssgn.baselines.protocol.choose``.

    Raises:
        ValueError: unknown taps, word vectors that do not fit, no class to train on, a training
            class without images, or equations that cannot be solved.
        FeatureError: NaN or infinity.
    """

    def prepare(device):
        inputs = Inputs(feats, taps, True, device)
        s = _class_vectors(feats, sem, inputs.device)
        of_sketch = sae_solver(inputs.x.T, s[inputs.x_labels].T)
        of_photo = sae_solver(inputs.v.T, s[inputs.v_labels].T)

        def at(lambda_: float) -> Baseline:
            of_x, of_v = of_sketch(lambda_).T, of_photo(lambda_).T
            return Baseline(lambda x: inputs.sketch(x) @ of_x, lambda v: inputs.photo(v) @ of_v)

        return at

    trials = [{"lambda_": k} for k in lambdas]
    return choose("sae", feats, prepare, trials, **run)


def sae_solver(x: Tensor, s: Tensor) -> Callable[[float], Tensor]:
    """Prepare :func:`sae` for any lambda, with two eigendecompositions.

    SS' and XX' are symmetric. In the bases of their eigenvectors the Sylvester equation reduces to
    one scalar equation per entry: ``f_i w_ij + lambda w_ij e_j = (1 + lambda) c_ij``.

    Args:
        x: ``[d, N]`` features, one example per column.
        s: ``[a, N]``, the class vector of each example.

    Returns:
        A function from lambda to W ``[a, d]``.
    """
    e, u = torch.linalg.eigh(x @ x.T)
    f, t = torch.linalg.eigh(s @ s.T)
    c = t.T @ (s @ x.T) @ u

    def at(lambda_: float) -> Tensor:
        both = f[:, None] + lambda_ * e
        # Where both eigenvalues are zero in float32's precision, c is too: any w solves the
        # equation, and 0 is the smallest.
        w = torch.where(both > 1e-6 * both.max(), (1 + lambda_) * c / both, 0.0)
        return t @ w @ u.T

    return at


def _class_vectors(feats: Features, sem: ArrayLike, device: torch.device) -> Tensor:
    """Return the word vectors of the training classes, standardized over these classes."""
    words = word_vectors(feats, sem)[feats.mask("train")]
    return Standardize(words)(words).to(device)
