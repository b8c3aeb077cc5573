"""``vitexport bench --device``: a device that is not this machine runs a bundle, and what it says is taken back."""
