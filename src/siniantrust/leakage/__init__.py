"""What leaves the trusted side, screened and attacked: the audit and its pictures."""
