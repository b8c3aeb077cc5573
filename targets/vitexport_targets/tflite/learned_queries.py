"""Attention whose query is learned, as SigLIP's pooling: the keys come first.

Why: LiteRT.js 2.5.3's GPU delegate takes no product whose left side is a constant ("Not supported batched mat mul case:
non-constant tensor"), and leaves all that comes after it to the CPU: 24 operations of a SigLIP. One with a constant
on the right it takes. (k q^T)^T is q k^T, number by number.
"""

from __future__ import annotations

from typing import Any

from vitexport_targets.tflite.attention import is_attention, spell_out
from vitexport_targets.tflite.fixed import fixed_nodes


def keys_before_learned_queries(module: Any) -> int:
    """Rewrite the graph module of an exported program in place. Returns how many attentions were rewritten."""
    graph = module.graph
    fixed = fixed_nodes(graph)
    learned = [node for node in list(graph.nodes) if is_attention(node) and node.args[0] in fixed]
    found = sum(spell_out(graph, node, keys_first=True) for node in learned)
    graph.eliminate_dead_code()
    module.recompile()
    return found
