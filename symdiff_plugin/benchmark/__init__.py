"""Speed and memory of the dynamics, side by side."""
