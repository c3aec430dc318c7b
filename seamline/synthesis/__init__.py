"""Forge media and know the truth."""
