"""What every target's quantiser shares: the pictures that activations are measured on, and the network made ready."""

#: Precisions that compute in fewer bits, not only store: they need pictures, and suffer from channels that stand out.
QUANTISES_ACTIVATIONS = frozenset({"w8-dyn", "w8a8", "w8a16"})
