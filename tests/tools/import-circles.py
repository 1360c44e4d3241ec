#!/usr/bin/env python3
"""Fails when modules of a crate import each other in a circle.

usage: import-circles.py CRATE_DIRECTORY...

Siblings are compared: an edge goes from module A to its sibling B when a file of A, or of a submodule of A, names something
of B through `crate::`, `super::` or a `use`. Names are followed through re-exports (`pub use`). A module and its own
submodules may use each other, and test modules are not read.
"""
import re
import sys
from pathlib import Path

PATH = re.compile(r"\b(?:crate|super|self)(?:::\w+)+(?:::\*)?")
USE = re.compile(r"\buse\s+([^;]+);")


def stripped(text):
    """The source without comments, strings and test modules."""
    text = re.sub(r'\br(#*)".*?"\1', '""', text, flags=re.S)
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text, flags=re.S)
    return re.split(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub )?mod \w+ *\{", text)[0]


def expanded(tree):
    """The paths of a use tree: `a::{b, c::d}` gives `a::b` and `a::c::d`."""
    tree = tree.strip()
    brace = tree.find("{")
    if brace < 0:
        return [re.split(r"\s+as\s+", tree)[0].strip()]
    prefix, body, depth, start, paths = tree[:brace], tree[brace + 1 : tree.rfind("}")], 0, 0, []
    for at, char in enumerate(body + ","):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            if body[start:at].strip():
                paths += [prefix + path for path in expanded(body[start:at])]
            start = at + 1
    return paths


class Crate:
    def __init__(self, root):
        self.files, self.reexports = {}, {}
        self.read((), root / "src" / ("lib.rs" if (root / "src/lib.rs").exists() else "main.rs"))
        for module, text in self.files.items():
            for visible, tree in re.findall(r"\b(pub(?:\([^)]*\))?)\s+use\s+([^;]+);", text):
                for path in expanded(tree):
                    name = path.split("::")[-1]
                    self.reexports[module, name] = path
            # An alias in the same use: the visible name is the alias.
            for tree in re.findall(r"\bpub(?:\([^)]*\))?\s+use\s+([^;{]+)\s+as\s+\w+\s*;", text):
                alias = re.search(r"\bas\s+(\w+)", tree)
                if alias:
                    self.reexports[module, alias[1]] = tree.split()[0]

    def read(self, module, file):
        text = stripped(file.read_text())
        self.files[module] = text
        folder = file.parent if file.name in ("lib.rs", "main.rs", "mod.rs") else file.with_suffix("")
        for test, name in re.findall(r"(#\[cfg\(test\)\]\s*)?(?:pub(?:\([^)]*\))?\s+)?\bmod\s+(\w+)\s*;", text):
            for child in (folder / f"{name}.rs", folder / name / "mod.rs"):
                if child.exists() and not test:
                    self.read((*module, name), child)

    def resolve(self, module, path, depth=0):
        """The module that `path`, written in `module`, leads to, or None outside the crate."""
        parts, at = path.split("::"), module
        if parts[0] == "crate":
            at, parts = (), parts[1:]
        elif parts[0] in ("self", "super"):
            while parts and parts[0] in ("self", "super"):
                at = at[:-1] if parts[0] == "super" else at
                parts = parts[1:]
        elif (*at, parts[0]) not in self.files:
            return None
        for part in parts:
            if (*at, part) in self.files:
                at = (*at, part)
            elif depth < 8 and (at, part) in self.reexports:
                return self.resolve(at, self.reexports[at, part], depth + 1)
            else:
                break
        return at

    def edges(self):
        """Edges between siblings: {(parent, from, to): example}."""
        found = {}
        for module, text in self.files.items():
            paths = [path for tree in USE.findall(text) for path in expanded(tree)]
            for path in paths + PATH.findall(USE.sub("", text)):
                target = self.resolve(module, path)
                if target is None:
                    continue
                same = 0
                while same < min(len(module), len(target)) and module[same] == target[same]:
                    same += 1
                if same < min(len(module), len(target)):
                    key = module[:same], module[same], target[same]
                    found.setdefault(key, f"{'::'.join(module)} uses {path}")
        return found


def circles(edges):
    """Strongly connected groups of more than one sibling, by depth-first search (Tarjan)."""
    graph = {}
    for parent, source, target in edges:
        graph.setdefault((parent, source), []).append((parent, target))
    index, low, stack, groups = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for following in graph.get(node, []):
            if following not in index:
                visit(following)
                low[node] = min(low[node], low[following])
            elif following in stack:
                low[node] = min(low[node], index[following])
        if low[node] == index[node]:
            group = []
            while not group or group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                groups.append(group)

    for node in list(graph):
        if node not in index:
            visit(node)
    return groups


def main():
    sys.setrecursionlimit(10_000)
    failed = False
    for directory in sys.argv[1:]:
        edges = Crate(Path(directory)).edges()
        for group in circles(edges):
            failed = True
            parent = "::".join(group[0][0]) or "crate root"
            names = {name for _, name in group}
            print(f"{directory}: import circle below {parent}: {', '.join(sorted(names))}")
            for (above, source, target), example in sorted(edges.items()):
                if above == group[0][0] and source in names and target in names:
                    print(f"    {source} -> {target}: {example}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
