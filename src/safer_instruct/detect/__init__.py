"""Detectors: what a text holds, told by patterns and small models shipped as data. They know examples of nothing and load no model."""
