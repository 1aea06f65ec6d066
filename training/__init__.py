"""Synthetic people, data, training stages and evaluation; nothing in `imagine/` imports this."""
