"""Saliency-guided relatives of HARL: crops that follow the object, queries that lose part of it."""
