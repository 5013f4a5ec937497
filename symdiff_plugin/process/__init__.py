"""The diffusion around a model: schedule, sampler, the bound, and what becomes of a sampler that diverges."""
