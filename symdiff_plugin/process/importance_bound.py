r"""A tighter likelihood: the bound of eq. (4) with K draws of R a reverse step instead of eq. (9)'s one.

Indices are EDM's: latents z_0, ..., z_T, where z_0 already carries a little noise, s = t - 1, and data x, h beyond it
(the paper calls the data z_0, so that its L_1 is EDM's L_0, and its L_{t+1} EDM's L_t). EDM estimates

    -log p(x, h) <= KL(q(z_T | x, h) || N(0, I)) + sum_{t=1}^T L_t + L_0,
    L_t = E_q(z_t | x, h) KL(q(z_s | z_t, x, h) || p(z_s | z_t)),     L_0 = E_q(z_0 | x, h)[-log p(x, h | z_0)],

the sum by one t ~ U{1, ..., T} a molecule, times T. For SymDiff p(z_s | z_t) = E_R k(z_s | R, z_t) is a mixture over
R ~ gamma(dR | z_t) (Proposition 1). Eq. (9) moves the logarithm into that expectation, which by Jensen's inequality
loosens the bound. With K independent draws R_1, ..., R_K at the same z_t (and eta_k, over which k's expectation goes
too),

    -log p(z_s | z_t) <= E[-log 1/K sum_k k(z_s | R_k, z_t)],

which never grows with K, is eq. (9)'s at K = 1 and tends to eq. (4)'s as K grows (Burda et al. 2016, Theorem 1). Each
L_t becomes L_t^K, an expectation over z_s ~ q as well, for the divergence from a mixture has no closed form.

**L_t.** q and k are Gaussian with one variance sigma_q^2, isotropic on ((N - 1) 3 + N nf) dimensions: positions have
zero centre of mass. With z_s = mu_q + sigma_q u, u ~ N_U(0, I), and w = SNR(s) / SNR(t) - 1 (EDM's eps-parametrised
weight),

    d_k = (mu_q - mu_k) / sigma_q = sqrt(w) (eps_k - eps),       eps_k = epsilon_theta's prediction with R_k,
    v_k = log k(z_s | R_k, z_t) - log q(z_s | z_t, x, h) = |u|^2 / 2 - |u + d_k|^2 / 2 = -(c_k + u . d_k),
    c_k = |d_k|^2 / 2 = w / 2 |eps - eps_k|^2;

normalisation and |u|^2 cancel, so no dimension is left. c_k is the divergence for this R_k in closed form: EDM's
term. L_t^K = E[-log 1/K sum_k exp v_k], and u . mean_k d_k, whose expectation is 0 because u knows nothing of the
d_k, is a control variate:

    L_t^K = E[-log 1/K sum_k exp v_k - u . mean_k d_k] = E[mean_k c_k - gap],
    gap = log 1/K sum_k exp v_k - mean_k v_k >= 0.

This is what is averaged. At K = 1 the gap is 0 and c_1, EDM's term, is left; where all predictions agree (EDM's EGNN,
any equivariant epsilon_theta) the gap is 0 for every K; and on no draw is the estimate above the mean of the K
estimates of eq. (9) made on the way.

**L_0** needs no u: x and h are given, v_k = log p(x, h | z_0, R_k) as a whole, c_k = -v_k. Its part over h is read off
z_0 and is the same for all k; that over x, a Gaussian of standard deviation sigma_0 / alpha_0, depends on eps_k.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def importance_weighted_nll(
    model: Any,
    x: Tensor,
    h: dict[str, Tensor],
    node_mask: Tensor,
    edge_mask: Tensor,
    context: Tensor | None,
    draws: int,
) -> tuple[Tensor, Tensor]:
    """An unbiased estimate of the K-draw bound on -log p(x, h | N), one t and one noise for each molecule.

    It takes 2 K calls of the network, one after another: memory does not grow with K. Its random numbers come from
    torch's global generator: t, the noises of z_t and z_0 as in EDM, then u, then the network's own.

    Args:
        model: EDM's ``EnVariationalDiffusion``, in eval mode.
        x: (B, N, 3) positions as in the data (Angstrom), with zero centre of mass, zero on padding.
        h: ``categorical`` (B, N, types) one-hot and ``integer`` (B, N, 1) charges, or of no elements without charges.
        node_mask: (B, N, 1) of 0 and 1.
        edge_mask: (B, N * N), as EDM's dynamics take it.
        context: (B, N, context_node_nf), or None.
        draws: K.

    Returns:
        The estimate (B,) in nats, and how much lower it is (B,) than the mean of the K estimates of eq. (9) on the
        same draws; the latter is not negative but for rounding. Both are float64.

    Raises:
        ValueError: K is below 1, or the model is in training mode, where EDM's terms are those of another loss.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, not {draws}")
    if model.training:
        raise ValueError("the likelihood is that of a model in eval mode: call model.eval() first")
    x, h, delta_log_px = model.normalize(x, h, node_mask)
    xh = torch.cat([x, h["categorical"], h["integer"]], dim=2)
    zeros = torch.zeros(len(x), 1, device=x.device)  # times are float32 in EDM
    t_int = torch.randint(1, model.T + 1, size=(len(x), 1), device=x.device).float()
    t = t_int / model.T
    eps, eps_0, u = (
        model.sample_combined_position_feature_noise(len(x), x.shape[1], node_mask).to(x.dtype) for _ in range(3)
    )
    gamma_t, gamma_s, gamma_0 = (
        model.inflate_batch_array(model.gamma(time), x) for time in (t, (t_int - 1) / model.T, zeros)
    )
    weight = (model.SNR(gamma_s - gamma_t) - 1).view(-1)  # (B,), as EDM computes it
    z_t = model.alpha(gamma_t, x) * xh + model.sigma(gamma_t, x) * eps
    z_0 = model.alpha(gamma_0, x) * xh + model.sigma(gamma_0, x) * eps_0

    def steps() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(draws):
            yield step_term(weight, eps, model.phi(z_t, t, node_mask, edge_mask, context), u)

    def reconstructions() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(draws):
            prediction = model.phi(z_0, zeros, node_mask, edge_mask, context)
            log_p = model.log_pxh_given_z0_without_constants(x, h, z_0, gamma_0, eps_0, prediction, node_mask).double()
            yield -log_p, log_p

    divergence, gap_t = mean_and_gap(steps())
    reconstruction, gap_0 = mean_and_gap(reconstructions())
    constants = model.kl_prior(xh, node_mask) - model.log_constants_p_x_given_z0(x, node_mask) - delta_log_px
    gain = model.T * gap_t + gap_0
    return constants.double() + model.T * divergence + reconstruction - gain, gain


def step_term(weight: Tensor, eps: Tensor, prediction: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """c_k and v_k of the module's text: a step's divergence for one R_k, and its log-ratio of densities at z_s.

    Args:
        weight: w (B,), SNR(s) / SNR(t) - 1.
        eps: (B, N, 3 + nf), the noise of z_t.
        prediction: (B, N, 3 + nf), eps_k. Like ``eps`` without centre of mass, and zero on padding.
        u: (B, N, 3 + nf), the noise of z_s.

    Returns:
        KL(q(z_s | z_t, x, h) || k(z_s | R_k, z_t)) and log k(z_s | R_k, z_t) - log q(z_s | z_t, x, h), (B,) float64.
    """
    d = weight.double().sqrt()[:, None, None] * (prediction.double() - eps.double())
    divergence = d.square().sum((1, 2)) / 2
    return divergence, -(divergence + (u.double() * d).sum((1, 2)))


def mean_and_gap(terms: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """mean_k c_k and log 1/K sum_k exp v_k - mean_k v_k, from the pairs (c_k, v_k), taken one at a time.

    Raises:
        ValueError: there are no terms.
    """
    count = 0
    for c, v in terms:
        count += 1
        if count == 1:
            sum_c, sum_v, log_sum = c, v, v
        else:
            sum_c, sum_v, log_sum = sum_c + c, sum_v + v, torch.logaddexp(log_sum, v)
    if not count:
        raise ValueError("there are no terms to average")
    return sum_c / count, log_sum - math.log(count) - sum_v / count
