"""Torch modules and nothing else: no files, downloads or settings."""
