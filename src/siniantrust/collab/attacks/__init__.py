"""Attacks on split learning, one file each: what a dishonest or curious cloud can do with what it gets in training."""
