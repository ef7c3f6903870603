"""A release's own statements, run to ask what they say: out of a folder that the caller unpacked.

An engine's defaults can be asked only by running what sets them, and the whole engine needs a card. So a few
functions of a source that somebody named on the command line run in a place of their own, and figures come
back: nothing of the source is kept, and nothing runs that a file of ours holds.
"""

from __future__ import annotations

import ast
import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


class Bare(ast.NodeTransformer):
    """Statements without what they import and how they are typed."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.decorator_list, node.returns = [], None
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_ImportFrom(self, _: ast.ImportFrom) -> ast.AST:
        return ast.Pass()

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        return ast.Assign([node.target], node.value) if node.value else ast.Pass()


def run(statements: Iterable[ast.stmt], place: dict[str, Any], file: str) -> None:
    """Run these statements of a file; what they define is in `place` afterwards."""
    module = Bare().visit(ast.Module(body=copy.deepcopy(list(statements)), type_ignores=[]))
    exec(compile(ast.fix_missing_locations(module), file, "exec"), place)
