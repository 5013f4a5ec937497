"""From noise to molecules: schedule, step grids and rules, the walk along them, the bound, samples that diverge.

    schedule         alpha, sigma and log-SNR at any time; the time of any log-SNR
    step_grids       the levels that a sampler stops at
    step_rules       from one level to the next: ancestral, DDIM, DPM-Solver++, Heun, Euler-Maruyama; Langevin
    sampler          which of them, and how many calls of the network: the flags, one table for every command
    walk             the one loop over the levels
    diffusion        molecules without EDM
    edm_diffusion    EDM's class with another sampler than its own

A process of its own needs a schedule (``level``, ``level_at``) and a network read as a
:class:`~symdiff_plugin.process.step_rules.Prediction`; grids, rules and walk are the same.
"""
