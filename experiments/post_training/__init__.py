"""Post-training on verifiable rewards, and what extrapolating its weights gives."""
