"""The demo: a trained network and real photographs that a fresh machine gets by pip alone."""
