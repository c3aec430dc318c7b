"""Scores of findings against truth: pure functions over arrays, each with its definition and its edge cases."""
