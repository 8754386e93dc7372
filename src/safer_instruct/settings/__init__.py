"""Sections of configs that have a room of their own; `config.py` and the rooms import them."""
