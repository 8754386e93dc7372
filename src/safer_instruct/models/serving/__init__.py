"""Servers of one's own weights: what they are started with, how they are started, watched and stopped."""
