"""From noise to molecules: schedule, step grids and rules, the walk along them, the bound, samples that diverge.

    schedule         alpha, sigma and log-SNR at any time; the time of any log-SNR
    step_grids       the levels that a sampler stops at
    step_rules       from one level to the next: ancestral, DDIM, DPM-Solver++, Heun, Euler-Maruyama; Langevin
    sampler          which of them, and how many calls of the network: the flags, one table for every command
    walk             the one loop over the levels
    diffusion        molecules without EDM
    edm_diffusion    EDM's class with another sampler than its own
    flow_path        flow matching's straight path from noise to data, which takes the schedule's place
    alignment        noise that is turned and reordered to lie near its molecule
    edm_processes    score and flow matching as classes like EDM's

A process of its own needs a schedule (``level``, ``level_at``) and a network read as a
:class:`~symdiff_plugin.process.level.Prediction`; grids, rules and walk are the same.
"""
