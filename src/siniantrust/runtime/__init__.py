"""A session over a bundle: launched, attested, pipelined, observed."""
