"""Synthetic people: who they are, how they are photographed, and the words for each photo."""
