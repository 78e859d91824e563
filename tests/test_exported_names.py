"""Every public name, module by module: what others build on goes or comes on purpose only.

After such a change: python -m tests.test_exported_names
"""

import ast
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
LISTED = Path(__file__).with_suffix(".json")


def exported() -> dict[str, list[str]]:
    """``__all__`` of each public module of the package, read without importing any."""
    found = {}
    package = ROOT / "ppool"
    rooms = [path for path in package.iterdir() if path.is_symlink()]
    for folder in (package, *rooms):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts).removesuffix(".__init__")
            if not any(part.startswith("_") for part in name.split(".")):
                found[name] = names(path)
    return found


def names(path: Path) -> list[str]:
    for node in ast.parse(path.read_text("utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            listed: list[str] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
            return listed
    return []


def test_every_public_module_exports_what_is_listed() -> None:
    assert exported() == json.loads(LISTED.read_text("utf-8"))


if __name__ == "__main__":
    lines = (f"  {json.dumps(module)}: {json.dumps(found)}" for module, found in exported().items())
    LISTED.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
