"""Orion: a smart sensor that reports where people are."""

__version__ = "0.1.0"
