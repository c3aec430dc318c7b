"""Heads: features in, logits out."""
