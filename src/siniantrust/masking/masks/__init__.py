"""Masks, one file each: a module here that defines ``MASK`` can be put into a model by its name."""
