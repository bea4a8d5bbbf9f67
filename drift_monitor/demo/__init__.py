"""The flights demo: real data, a real model, one labelled fault, and the real daemon that has to find it."""
