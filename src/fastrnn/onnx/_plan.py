"""Cut a graph at its recurrent nodes: which of the other nodes run together, before which of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fastrnn.onnx._model import Scope

# Operators that give another result each time, so that they must not be run again in every part of the graph.
RANDOM = {
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
}


@dataclass
class Stage:
    """Nodes for onnxruntime, then nodes that are run here, in this order."""

    others: list[Any] = field(default_factory=list)
    special: list[Any] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)  # of the other nodes, without those that are constant
    outputs: list[str] = field(default_factory=list)  # of the other nodes, as far as anybody needs them


def read_by(scope: Scope, node: Any) -> Iterator[str]:
    """Yield the names that a node reads; those that graphs inside it read from around them too."""
    yield from (name for name in node.input if name)
    for body in scope.bodies(node):
        own = {i.name for i in body.graph.input} | set(body.initializers)
        made: set[str] = set()
        for inner in body.graph.node:
            yield from (name for name in read_by(body, inner) if name not in own and name not in made)
            made |= set(inner.output)
        yield from (o.name for o in body.graph.output if o.name not in own and o.name not in made)


def plan(
    scope: Scope, nodes: list[Any], special: Callable[[Any], bool], needed_by: Callable[[Any], list[str]]
) -> list[Stage]:
    """Return the stages of a graph.

    Parameters
    ----------
    nodes : list
        The graph's nodes.
    special : function of a node
        Whether it is run here.
    needed_by : function of a special node
        The names that it needs when it runs: without its weights, if they are constant.
    """
    reads = [needed_by(n) if special(n) else list(read_by(scope, n)) for n in nodes]
    producer = {name: k for k, node in enumerate(nodes) for name in node.output if name}
    wanted = _wanted(nodes, reads, producer, [o.name for o in scope.graph.output])
    constant = _constant(scope, nodes, reads, producer, special)
    level: dict[int, int] = {}
    for k, node in enumerate(nodes):
        if k in wanted:
            before = [producer[name] for name in reads[k] if name in producer]
            step = [level[p] + (special(nodes[p]) and not special(node)) for p in before if p in level]
            level[k] = max(step, default=0)
    stages = [Stage() for _ in range(1 + max(level.values(), default=0))]
    for k in sorted(level):
        if special(nodes[k]):
            stages[level[k]].special.append(nodes[k])
        elif k not in constant:
            stages[level[k]].others.append(nodes[k])
    _connect(scope, stages, nodes, reads, producer, constant, special, needed_by)
    return [stage for stage in stages if stage.others or stage.special]


def _wanted(
    nodes: list[Any], reads: list[list[str]], producer: dict[str, int], outputs: list[str]
) -> set[int]:
    """Return the numbers of the nodes that outputs of the graph depend on."""
    found: set[int] = set()
    names = list(outputs)
    while names:
        k = producer.get(names.pop())
        if k is not None and k not in found:
            found.add(k)
            names += reads[k]
    return found


def _constant(
    scope: Scope, nodes: list[Any], reads: list[list[str]], producer: dict[str, int], special: Any
) -> set[int]:
    """Return the nodes that depend on no input. Every part that needs them has its own; onnxruntime folds them."""
    found: set[int] = set()
    for k, node in enumerate(nodes):
        if special(node) or node.op_type in RANDOM or any(a.HasField("g") for a in node.attribute):
            continue
        if all(producer.get(name) in found or _stored(scope, name) for name in reads[k]):
            found.add(k)
    return found


def _stored(scope: Scope, name: str) -> bool:
    """Whether a name is that of a stored tensor, and not of an input that has it as its default."""
    where, made = scope.find(name)
    return made is not None and name in where.initializers and name not in where.inputs


def _connect(
    scope: Scope,
    stages: list[Stage],
    nodes: list[Any],
    reads: list[list[str]],
    producer: dict[str, int],
    constant: set[int],
    special: Any,
    needed_by: Any,
) -> None:
    """Fill in what the parts for onnxruntime read and write, and give each the constant nodes that it needs."""
    numbers = {id(node): k for k, node in enumerate(nodes)}
    asked = {name for stage in stages for node in stage.special for name in needed_by(node)}
    asked |= {o.name for o in scope.graph.output}
    # What only special nodes and outputs ask of constant nodes comes from the first part.
    loose = [n for n in asked if producer.get(n) in constant]
    if loose and not stages[0].others:
        stages[0].others = [nodes[producer[loose[0]]]]
    for index, stage in enumerate(stages):
        own = {name for node in stage.others for name in node.output if name}
        names = [name for node in stage.others for name in reads[numbers[id(node)]]]
        names += loose if index == 0 else []
        folded: set[int] = set()
        for name in names:
            k = producer.get(name)
            if k in constant and k not in folded:
                folded.add(k)
                names += reads[k]
        parts = folded | {numbers[id(node)] for node in stage.others}
        stage.others = [nodes[k] for k in sorted(parts)]
        own |= {name for node in stage.others for name in node.output if name}
        stage.inputs = [n for n in dict.fromkeys(names) if n not in own and not _stored(scope, n)]
    for index, stage in enumerate(stages):
        later = {name for other in stages[index + 1 :] for name in other.inputs} | asked
        made = [name for node in stage.others for name in node.output if name in later]
        earlier = {name for other in stages[:index] for name in other.outputs}
        stage.outputs = [name for name in dict.fromkeys(made) if name not in earlier]
