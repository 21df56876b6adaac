"""Contracts and algorithms, written against the array API; no framework is imported here."""
