"""What jumps and other gains from past weights are worth on a small language model."""
