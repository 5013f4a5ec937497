"""Small faults in a module's source, one at a time: what ``mutate.py`` plants.

Comparisons turn into others, arithmetic into its opposite, constants into the next ones and conditions into their
negation; arguments, slices' bounds, calls around a value, statements and results are left out. Annotations, words for
people and what is only defined, such as imports, are left alone.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType

# What is no part of the core though its module is: command lines and words for people.
NOT_CORE = {
    "main", "_parser", "samples_table", "metrics_table", "write_samples", "write_evaluation", "summary_of_samples",
    "summary_of_repetitions", "extra_repr", "words", "command_line",
}  # fmt: skip
_INSIDE = (ast.expr, ast.stmt, ast.keyword, ast.comprehension, ast.withitem, ast.arguments)
_COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
_ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One fault: where it is, what it is, and the module with it."""

    line: int
    end: int
    where: str  # the function or class, "" outside of all
    runs: bool  # whether it is in what a function does, not what it is when it is defined
    key: str  # names it whatever the line: function, text before and after
    code: CodeType


def mutants(source: str, path: str, package: str) -> Iterator[Mutant]:
    """Every mutant of a module of ``package``, in the order of its lines."""
    tree = ast.parse(source)
    imported = {
        alias.asname or alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if not (isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(package))
    }
    seen: Counter[str] = Counter()
    for holder, place, node, where, runs in list(_sites(tree, "", False)):
        for new in _faults(node, holder, imported):
            before, after = (_text(part) for part in (node, new))
            key = f"{where or 'module'}: {before} -> {after}"
            seen[key] += 1
            ast.fix_missing_locations(ast.copy_location(new, node))
            _put(holder, place, new)
            code = compile(tree, path, "exec")
            _put(holder, place, node)
            numbered = key if seen[key] == 1 else f"{key} #{seen[key]}"
            yield Mutant(node.lineno, node.end_lineno or node.lineno, where, runs, numbered, code)


def _text(node: ast.AST) -> str:
    """Its source on one line; of what has a body the first line alone."""
    text = ast.unparse(node)
    return text.splitlines()[0] if isinstance(node, ast.If | ast.While | ast.With) else " ".join(text.split())


def _put(holder: ast.AST, place: tuple[str, int | None], node: ast.AST) -> None:
    field, index = place
    if index is None:
        setattr(holder, field, node)
    else:
        getattr(holder, field)[index] = node


def _sites(
    node: ast.AST, where: str, runs: bool
) -> Iterator[tuple[ast.AST, tuple[str, int | None], ast.AST, str, bool]]:
    """Every node that may be replaced: its parent, its place there, itself, in which function it is, and whether there
    it is run."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "bases", "keywords") and not isinstance(node, ast.Call):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, _INSIDE):
                continue
            inside, inside_runs = where, runs
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                if child.name in NOT_CORE:
                    continue
                inside, inside_runs = f"{where}.{child.name}".lstrip("."), runs or isinstance(child, ast.FunctionDef)
            elif isinstance(child, ast.arguments):
                inside_runs = False  # defaults
            if isinstance(child, ast.Import | ast.ImportFrom | ast.JoinedStr):
                continue
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                continue  # a docstring
            if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "__name__ == '__main__'"):
                continue
            if isinstance(child, ast.expr | ast.stmt):
                yield node, (field, index), child, inside, inside_runs
            if not isinstance(child, ast.Raise):  # its words are for people
                yield from _sites(child, inside, inside_runs)


def _faults(node: ast.AST, holder: ast.AST, imported: set[str]) -> Iterator[ast.AST]:
    """What may stand in the place of a node."""

    def like(**fields: object) -> ast.AST:
        new = copy.copy(node)
        for name, value in fields.items():
            setattr(new, name, value)
        return new

    match node:
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                for other in _COMPARISONS[type(op)]:
                    yield like(ops=[*ops[:i], other(), *ops[i + 1 :]])
        case ast.BinOp(op=ast.MatMult(), left=left, right=right):
            yield like(left=right, right=left)
        case ast.BinOp(op=op) if type(op) in _ARITHMETIC:
            yield like(op=_ARITHMETIC[type(op)]())
        case ast.BoolOp(op=op):
            yield like(op=ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int())):
            pass  # -1 is the last dimension, in which 1 may be the same; it becomes -2 below
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield like(value=not value)
        case ast.Constant(value=int(value)):
            yield like(value=value + 1)
        case ast.Constant(value=float(value)):
            yield like(value=2 * value or 1.0)
        case ast.Slice(lower=lower, upper=upper):
            if lower is not None:
                yield like(lower=None)
            if upper is not None:
                yield like(upper=None)
        case ast.Attribute(attr="mT" | "T", ctx=ast.Load(), value=value):
            yield value
        case ast.Call(func=func, args=args, keywords=keywords):
            for i, keyword in enumerate(keywords):
                if keyword.arg is not None:
                    yield like(keywords=[*keywords[:i], *keywords[i + 1 :]])
            last = args[-2:]
            if len({ast.unparse(one) for one in last if isinstance(one, ast.Name | ast.Attribute)}) == 2:
                yield like(args=[*args[:-2], args[-1], args[-2]])
            if not isinstance(holder, ast.Expr):
                method = isinstance(func, ast.Attribute) and ast.unparse(func.value) not in ("self", "ctx")
                if method and _root(func) not in {*imported, "super"}:
                    yield func.value  # x.f() -> x
                elif args and not isinstance(args[0], ast.Starred):
                    yield args[0]  # f(x) -> x
        case ast.If() | ast.While() | ast.IfExp() if not isinstance(node.test, ast.Compare | ast.UnaryOp | ast.BoolOp):
            yield like(test=ast.copy_location(ast.UnaryOp(ast.Not(), node.test), node.test))
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield like(value=ast.copy_location(ast.Constant(None), value))
        case ast.With(items=items, body=body) if all(item.optional_vars is None for item in items):
            yield ast.If(test=ast.Constant(True), body=body, orelse=[])
        case ast.Expr() | ast.Raise() | ast.AugAssign() | ast.Continue() | ast.Break():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            if any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(value)):
                yield ast.Pass()  # x = f(x)


def _root(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute | ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""
