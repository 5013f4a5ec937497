"""What a training step and a denoising step cost: time, memory, and how often the host waits for the device."""
