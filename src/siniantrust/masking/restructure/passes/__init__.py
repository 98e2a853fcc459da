"""The passes, one file each; ``siniantrust.masking.restructure.list_passes`` finds them."""
