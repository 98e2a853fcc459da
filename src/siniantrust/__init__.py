"""SinianTrust: run the private part of a neural network where you trust the hardware, the rest where it is fast."""

__version__ = "0.1.0"
