"""A chapter's own code for its solutions, so that there is no second copy of it.

from chapter import code
exec(code("03_backward", "backward", "by_autograd"))
print(code("03_backward", "backward"))
"""

import ast
import json
from pathlib import Path

CHAPTERS = Path(__file__).resolve().parent.parent


def code(chapter, *names):
    """The functions, classes and assignments of these names, as source, in the chapter's order.

    Where a chapter gives a name twice, it is the last one. Nothing is executed here.
    """
    notebook = json.loads((CHAPTERS / f"{chapter}.ipynb").read_text(encoding="utf-8"))
    found = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"])
        for statement in ast.parse(source).body:
            for name in _defined(statement) & set(names):
                found.pop(name, None)
                found[name] = ast.get_source_segment(source, statement)
    missing = set(names) - set(found)
    if missing:
        raise KeyError(f"chapter {chapter} does not define {', '.join(sorted(missing))}")
    return "\n\n\n".join(dict.fromkeys(found.values()))


def _defined(statement):
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, ast.Assign):
        return {
            part.id
            for target in statement.targets
            for part in ast.walk(target)
            if isinstance(part, ast.Name)
        }
    return set()
