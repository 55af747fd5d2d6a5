"""Losses: logits (B, K) and labels (B,), or soft labels (B, K), to a scalar."""
