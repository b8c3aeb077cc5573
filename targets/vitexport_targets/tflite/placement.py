"""Which operations XNNPACK took, and which were left to LiteRT's own kernels.

The interpreter keeps the operations that a delegate has replaced in its list, beside the delegate's node for each
partition, and does not say which are which. A partition is what lies between its node's inputs and its outputs.
"""

from __future__ import annotations

from typing import Any

from vitexport.contract import Placement

DELEGATE = "DELEGATE"


def read_placement(interpreter: Any) -> Placement:
    """Of the file's first subgraph."""
    every = interpreter._get_ops_details()
    partitions = [op for op in every if op["op_name"] == DELEGATE]
    operations = [op for op in every if op["op_name"] != DELEGATE]
    makes = {int(tensor): op for op in operations for tensor in op["outputs"]}
    taken: set[int] = set()
    for partition in partitions:
        given = {int(tensor) for tensor in partition["inputs"]}
        wanted = [int(tensor) for tensor in partition["outputs"]]
        while wanted:
            tensor = wanted.pop()
            op = makes.get(tensor)
            if tensor in given or op is None or op["index"] in taken:
                continue
            taken.add(op["index"])
            wanted.extend(int(t) for t in op["inputs"])
    left = [op for op in operations if op["index"] not in taken]
    names = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
    nodes = {"xnnpack": len(taken), "cpu": len(left)}
    fallback = tuple(f"{op['op_name']} ({names.get(int(op['outputs'][0]), '?')})" for op in left)
    return Placement({name: count for name, count in nodes.items() if count}, fallback)
