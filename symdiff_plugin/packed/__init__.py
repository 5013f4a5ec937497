"""The model's speed: packed atoms, and what a transformer computes on them."""
