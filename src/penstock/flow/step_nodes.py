"""Which node stands for which kind of step in the tree of a run."""

from collections.abc import Mapping
from typing import Any, Final

from penstock.flow.one_at_a_time import BranchNode, RoundsNode, SequenceNode
from penstock.flow.reviews import ReviewNode
from penstock.flow.steps import Step
from penstock.flow.together import MapNode, ParallelNode
from penstock.flow.tree import LeafNode, Node, StepTree

_KINDS: Final[Mapping[str, type[Node]]] = {
    "pipeline": SequenceNode,
    "parallel": ParallelNode,
    "map": MapNode,
    "branch": BranchNode,
    "loop": RoundsNode,
    "review": ReviewNode,
}


def node_of(tree: StepTree, step: Step[Any, Any], path: str, parent: Node | None, position: int) -> Node:
    """Make the node of a step; what is no structure is a leaf, which is called."""
    return _KINDS.get(step.kind, LeafNode)(tree, step, path, parent, position)
