"""Screens, one file each: a module here that defines ``SCREEN`` is part of every audit."""
