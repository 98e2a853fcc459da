"""Attacks, one file each: a module here that defines ``ATTACK`` is part of every audit."""
