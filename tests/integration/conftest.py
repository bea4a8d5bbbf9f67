"""Lets the tests in folders below import this folder's modules."""
