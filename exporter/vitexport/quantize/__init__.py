"""What every target's quantiser shares: the pictures that activations are measured on, and the network made ready."""

#: Precisions that compute in fewer bits, not only store: they need pictures, and suffer from channels that stand out.
QUANTISES_ACTIVATIONS = frozenset({"w8-dyn", "w8a8", "w8a16"})

#: Those of them that fix each activation's range once, for all pictures to come.
FIXES_RANGES = frozenset({"w8a8", "w8a16"})
