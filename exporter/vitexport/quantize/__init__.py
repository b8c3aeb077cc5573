"""What every target's quantiser shares: the pictures that activations are measured on."""
