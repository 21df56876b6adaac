"""Steps of a small dense quadratic model, with and without anisotropic cubic regularisation.

P. Wolinski, "Adapting Newton's method to neural networks through a summary of higher-order
derivatives" (2023), section 4 and Appendix D.
"""

from __future__ import annotations

from typing import NamedTuple

from ..arrays import Array, eps, identity_like, integer_like, like, namespace, norm
from ..flow import Flow

#: Times that r is tripled before H + lam/2 r D^2 is taken never to become definite: 3^60 is 4e28.
TRIPLINGS = 60
#: Limit to the Newton iterations on the secular equation, which needs about six.
NEWTON_STEPS = 50


class CubicStep(NamedTuple):
    """A minimiser of the cubic model."""

    eta: Array
    """Shape (S,); zeros if it was not found."""
    r: Array
    """|D eta|, 0-d."""
    solved: Array
    """Whether it was found, 0-d."""


class _Base(NamedTuple):
    """The shift r that is tried, and W with W'(H + lam/2 r D^2) W = I if that is definite."""

    r: Array
    W: Array
    definite: Array
    tries: Array


class _Positive(NamedTuple):
    """The groups that are kept, as ones and zeros, and their step."""

    kept: Array
    step: CubicStep


class _Newton(NamedTuple):
    t: Array
    change: Array
    iterations: Array


def inverse(H: Array) -> tuple[Array, Array]:
    """Return the inverse of a symmetric matrix, and whether it has one (0-d).

    A row and column of zeros, which belongs to a group whose direction vanishes, is left out, and
    zero in the inverse. Where the rest is singular or not finite, the inverse is zero altogether.
    """
    xp = namespace(H)
    present = xp.any(H != 0, axis=1)
    H, finite = _completed(H, present)
    scale = 1 / xp.sqrt(_positive(xp.abs(xp.linalg.diagonal(H))))
    w, V = xp.linalg.eigh(scale[:, None] * H * scale)
    regular = finite & (xp.min(xp.abs(w)) > H.shape[0] * eps(w) * xp.max(xp.abs(w)))
    V = scale[:, None] * V * xp.astype(present & regular, V.dtype)[:, None]
    return xp.matmul(V / _nonzero(w), xp.matrix_transpose(V)), regular


def cubic_step(H: Array, D: Array, g: Array, lam: float, flow: Flow) -> CubicStep:
    """Minimise -g'eta + eta'H eta/2 + lam/6 |D eta|^3 over eta.

    With M(r) = H + lam/2 r D^2, the minimiser solves M(r) eta = g for r = |D eta|, and M(r) is
    positive definite for r > r0. So r is the root of the *secular equation*

        r = |D M(r)^-1 g|   on (r0, inf).

    Parameters
    ----------
    H : array of shape (S, S)
        Symmetric.
    D : array of shape (S,)
        The diagonal of D, not negative.
    g : array of shape (S,)
    lam : float
        Not negative. At 0 the step is H^-1 g, a minimiser or not.
    flow : Flow

    Returns
    -------
    CubicStep
        Not solved if an input is not finite; if no M(r) is definite (D vanishes in a direction of
        negative curvature); in the *hard case*, where g has no part along the direction in which
        M(r0) is singular, so that the equation may have no root; or if rounding leaves a residual
        above sqrt(eps) of the terms that make it up, or an M(|D eta|) that is not definite.

    Notes
    -----
    Appendix D tells apart a definite H, an indefinite one, and a D that is almost singular, and
    inverts D for the second. Here one diagonalisation serves all three and inverts nothing small: r
    is tripled until M(r1) is definite, from r1 = 0, and T with T'M(r1)T = I, T'D^2 T = diag(mu)
    gives

        M(r)^-1 = T diag(1 / (1 + lam/2 (r - r1) mu)) T',   r0 = max(0, r1 - 2 / (lam max(mu))).

    |D eta|^2 is then a sum of simple poles, so that 1/|D eta| - 1/r is concave and increasing, and
    Newton's iteration from the left of its root converges without a bracket (Conn, Gould and Toint
    2000, section 7.3). Matrices are scaled to a unit diagonal before they are diagonalised: scaling
    the direction of a group by c divides its eta by c, to rounding. A group on which H and g vanish
    gets eta = 0.
    """
    xp = namespace(H)
    present = (g != 0) | xp.any(H != 0, axis=1)
    H, finite = _completed(H, present, D, g)
    D, g = (xp.where(finite, a, xp.zeros_like(a)) for a in (D, g))
    if lam == 0:
        H_inverse, found = inverse(H)
        eta = xp.matmul(H_inverse, g)
    else:
        eta, _, found = _largest_root(H, D, g, lam, flow)
    eta = xp.where(present, eta, xp.zeros_like(eta))  # rounding mixes the absent in
    r = norm(D * eta)
    cubic = lam / 2 * r * D * D * eta
    size = xp.matmul(xp.abs(H), xp.abs(eta)) + xp.abs(cubic) + xp.abs(g)
    # A row that balances nothing of its own is held to the energy of all of them.
    energy = (xp.abs(xp.linalg.diagonal(H)) + lam / 2 * r * D * D) * xp.sum(xp.abs(eta) * size)
    residual = xp.abs(xp.matmul(H, eta) + cubic - g)
    exact = xp.all(residual <= eps(H) ** 0.5 * (size + xp.sqrt(energy)))  # False for NaN
    solved = finite & found & exact
    if lam:
        solved = solved & _nearly_definite(H, lam / 2 * r * D * D)
    return CubicStep(xp.where(solved, eta, xp.zeros_like(eta)), r, solved)


def positive_cubic_step(H: Array, D: Array, g: Array, lam: float, flow: Flow) -> CubicStep:
    """Minimise the model of :func:`cubic_step` with eta >= 0.

    Groups with eta_s < 0 are left out and the rest solved again, until there are none; this takes
    at most S solutions. Replacing negative eta_s by 0 instead would keep the others at lengths that
    are right only together with them: where two groups have the same effect, as the weights and
    biases of a layer often do, a solution of (1001, -1000) would become (1001, 0).

    The parameters and the result are those of :func:`cubic_step`. A group that is left out does not
    come back, so that the result is a minimiser over the groups that are kept, and not always the
    least with eta >= 0. No units of the groups change it.
    """
    xp = namespace(H)

    def attempt(kept: Array) -> _Positive:
        step = cubic_step(kept[:, None] * H * kept, kept * D, kept * g, lam, flow)
        return _Positive(kept, step)

    def leave_out(s: _Positive) -> _Positive:
        return attempt(xp.where(s.step.eta < 0, xp.zeros_like(g), s.kept))

    whole = attempt(xp.ones_like(g))
    return flow.while_loop(lambda s: xp.any(s.step.eta < 0), leave_out, whole).step


def _largest_root(H: Array, D: Array, g: Array, lam: float, flow: Flow) -> CubicStep:
    """Return the solution of M(r) eta = g with M(r) definite, and whether there is one."""
    xp = namespace(H)
    base = _definite_base(H, D, g, lam, flow)
    R = D[:, None] * base.W
    mu, Q = xp.linalg.eigh(xp.matmul(xp.matrix_transpose(R), R))
    mu = xp.maximum(mu, like(mu, 0.0))  # rounding makes some negative
    T = xp.matmul(base.W, Q)
    c = xp.matmul(xp.matrix_transpose(T), g)

    # In t = r - r0, 1 + lam/2 (r - r1) mu is b + k t, which does not cancel next to the pole.
    k = lam / 2 * mu
    gap = xp.minimum(base.r, 1 / _nonzero(xp.max(k)))
    r0, b = base.r - gap, xp.maximum(1 - gap * k, like(k, 0.0))
    t, has_root = _secular_root(xp.sqrt(mu) * xp.abs(c), b, k, r0, flow)
    return CubicStep(xp.matmul(T, c / _nonzero(b + k * t)), r0 + t, base.definite & has_root)


def _nearly_definite(H: Array, added: Array) -> Array:
    """Return whether H + diag(added) has no negative eigenvalue clear of rounding."""
    xp = namespace(H)
    diagonal = xp.linalg.diagonal(H)
    scale = 1 / xp.sqrt(_positive(xp.abs(diagonal) + added))
    M = scale[:, None] * H * scale + added * scale * scale * identity_like(H, H.shape[0])
    return xp.min(xp.linalg.eigvalsh(M)) >= -(eps(H) ** 0.5)


def _completed(H: Array, present: Array, *others: Array) -> tuple[Array, Array]:
    """Return H with rows of the identity where a group is absent, and whether all are finite.

    Where anything is not finite it is the identity altogether: PyTorch raises on such a matrix.
    """
    xp = namespace(H)
    finite = xp.all(xp.isfinite(H))
    for other in others:
        finite = finite & xp.all(xp.isfinite(other))
    identity = identity_like(H, H.shape[0])
    return xp.where(finite & present[:, None], H, identity), finite


def _definite_base(H: Array, D: Array, g: Array, lam: float, flow: Flow) -> _Base:
    """Return the first r among 0, r_1, 3 r_1, 9 r_1, ... at which H + lam/2 r D^2 is definite.

    r_1 is small: no entry of H, and no g, is exceeded there by what the cubic term puts beside it.
    """
    xp = namespace(H)
    D2 = lam / 2 * D * D
    of_pairs = xp.abs(H) / _nonzero(D[:, None] * D) * (2 / lam)
    of_slopes = xp.sqrt(xp.abs(g) / _nonzero(D) * (2 / lam))
    scales = xp.concat([xp.reshape(of_pairs, (-1,)), of_slopes])
    cubic = xp.concat([xp.reshape(D[:, None] * D, (-1,)), D]) > 0
    first = xp.min(xp.where(cubic & (scales > 0), scales, like(H, float("inf"))))
    first = xp.where(xp.isfinite(first), first, like(H, 1.0))
    limit = float(xp.finfo(H.dtype).max) / 4
    identity = identity_like(H, H.shape[0])

    def attempt(r: Array, tries: Array) -> _Base:
        M = H + r * D2[:, None] * identity
        diagonal = xp.linalg.diagonal(M)
        scale = 1 / xp.sqrt(_positive(diagonal))
        w, V = xp.linalg.eigh(scale[:, None] * M * scale)
        # Well within the definite ones, for W to be accurate; any of them would do as a base.
        definite = xp.all(diagonal > 0) & (xp.min(w) > eps(w) ** 0.5)
        return _Base(r, scale[:, None] * V / xp.sqrt(_positive(w)), definite, tries)

    def keep_going(base: _Base) -> Array:
        return ~base.definite & (base.tries < TRIPLINGS) & (3 * base.r * xp.max(D2) < limit)

    def triple(base: _Base) -> _Base:
        return attempt(xp.where(base.r > 0, 3 * base.r, first), base.tries + 1)

    return flow.while_loop(keep_going, triple, attempt(like(H, 0.0), integer_like(H, 0)))


def _secular_root(w: Array, b: Array, k: Array, r0: Array, flow: Flow) -> tuple[Array, Array]:
    """Return the root t >= 0 of r0 + t = |w / (b + k t)|, and whether there is one.

    w, b and k are of shape (S,), none negative, and k > 0 where w > 0.
    """
    xp = namespace(w)
    # Each pole alone has its root to the left of theirs together; it solves a quadratic.
    excess = xp.maximum(w - b * r0, like(w, 0.0))
    slope = b + k * r0
    left = xp.max(2 * excess / _nonzero(slope + xp.sqrt(slope * slope + 4 * k * excess)))

    def terms(t: Array) -> tuple[Array, Array]:
        poles = _nonzero(b + k * t)
        return w / poles, k / poles

    def newton(s: _Newton) -> _Newton:
        z, relative = terms(s.t)
        length, r = norm(z), r0 + s.t
        unit = z / _nonzero(length)
        slope = r * xp.sum(unit * unit * relative) + length / _nonzero(r)
        change = (length - r) / _nonzero(slope)
        return _Newton(s.t + xp.maximum(change, like(w, 0.0)), change, s.iterations + 1)

    def keep_going(s: _Newton) -> Array:
        return (s.change > 2 * eps(w) * s.t) & (s.iterations < NEWTON_STEPS)

    start = _Newton(left, like(w, float("inf")), integer_like(w, 0))
    hard = (left == 0) & (norm(terms(left)[0]) < r0)
    return flow.while_loop(keep_going, newton, start).t, ~hard


def _nonzero(a: Array) -> Array:
    """Return ``a`` with 1 in place of 0, to divide by."""
    xp = namespace(a)
    return xp.where(a == 0, xp.ones_like(a), a)


def _positive(a: Array) -> Array:
    """Return ``a`` with 1 where it is not positive, to take the root of and divide by."""
    xp = namespace(a)
    return xp.where(a > 0, a, xp.ones_like(a))
