"""What EDM's training loop and scripts ask of the plugin."""
