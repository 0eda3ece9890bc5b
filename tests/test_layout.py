"""The layout of the repository is a promise: what lies where, who may import whom, and what importing costs.

The sources are read with `ast`, never with regular expressions, so a comment or a docstring cannot raise an alarm. Each
reader is first shown a source that breaks its rule (`test_*_are_seen`): a check that cannot fail is worse than none.
"""

import ast
import importlib
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("aligners", "stitching", "cli")
ORDER = {room: rank for rank, room in enumerate((*ROOMS, "benchmarks"))}
ALLOWED_AT_TOP = {
    *ORDER,
    *("tests", "docs", "__init__.py", "py.typed", "pyproject.toml", "constraints.txt", "Makefile"),
    *("README.md", "LICENSE", "NOTICE", "CHANGELOG.md", "CONTRIBUTING.md", "mkdocs.yml"),
}
LONGEST_MODULE = 350
HEAVY = {
    "torch",
    "markdown_it",
    "pygments",
    "numpy",
    "scipy",
    "sklearn",
    "ot",
    "safetensors",
    "pyarrow",
    "h5py",
    "pandas",
}
# torch.load(weights_only=True) refuses with this exception: naming the class runs nothing.
HARMLESS = {"pickle.UnpicklingError"}
PICKLES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
FILE_MODULES = {"pathlib", "io", "shutil", "tempfile", "mmap", "zipfile", "glob", "safetensors", "pyarrow", "h5py"}
FILE_CALLS = {
    *("open", "memmap", "fromfile", "tofile", "savez", "savez_compressed", "loadtxt", "savetxt", "genfromtxt"),
    *("read_text", "read_bytes", "write_text", "write_bytes"),
    *("np.load", "np.save", "numpy.load", "numpy.save", "torch.load", "torch.save"),
}


@dataclass(frozen=True)
class Import:
    """One imported name, absolute: `from ..maps import Affine` in aligners/linear is suture.aligners.maps.Affine."""

    name: str
    line: int
    in_function: bool
    for_typing: bool

    @property
    def top(self) -> str:
        return self.name.split(".")[0]

    @property
    def room(self) -> str | None:
        """The folder at the top that is imported from, if any: benchmarks are no part of `suture`, but have a room."""
        parts = [*self.name.split("."), ""]
        room = parts[1] if parts[0] == "suture" else parts[0]
        return room if room in ORDER else None


def package_of(path: Path, root: Path = ROOT) -> list[str]:
    folder = path.relative_to(root).parent.parts
    return list(folder) if folder[:1] == ("benchmarks",) else ["suture", *folder]


def is_type_checking(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", None), getattr(test, "attr", None))


def imports(path: Path, root: Path = ROOT) -> list[Import]:
    package = package_of(path, root)

    def visit(node: ast.AST, in_function: bool, for_typing: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, in_function, for_typing)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *([node.module] if node.module else [])]
            for alias in node.names:
                yield Import(".".join([*module, alias.name]), node.lineno, in_function, for_typing)
        elif isinstance(node, ast.If) and is_type_checking(node.test):
            for child in node.body:
                yield from visit(child, in_function, True)
            for child in node.orelse:
                yield from visit(child, in_function, for_typing)
        else:
            inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, inside, for_typing)

    return list(visit(ast.parse(path.read_text(encoding="utf-8")), False, False))


def calls(path: Path) -> Iterator[ast.Call]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def where(path: Path, line: int, root: Path) -> str:
    return f"{path.relative_to(root)}:{line}"


def wrong_way(path: Path, root: Path = ROOT) -> list[str]:
    """Imports against `aligners <- stitching <- cli <- benchmarks`; for typing alone is against it, too."""
    own = ORDER[path.relative_to(root).parts[0]]
    return [
        f"{where(path, found.line, root)} imports {found.name}: dependencies point one way"
        for found in imports(path, root)
        if (found.room is not None and ORDER[found.room] > own) or found.top == "tests"
    ]


def terminal_imports(path: Path, root: Path = ROOT) -> list[str]:
    return [
        f"{where(path, found.line, root)} imports {found.name}: only cli writes to a terminal"
        for found in imports(path, root)
        if found.top in {"typer", "rich", "click"}
    ]


def file_access(path: Path, root: Path = ROOT) -> list[str]:
    named = [
        (found.line, found.name) for found in imports(path, root) if found.top in FILE_MODULES and not found.for_typing
    ]
    called = [(call.lineno, ast.unparse(call.func)) for call in calls(path)]
    opened = [(line, name) for line, name in called if {name, name.rsplit(".", 1)[-1]} & FILE_CALLS]
    return [
        f"{where(path, line, root)} uses {name}: aligners know no files but their own, in aligners/file.py"
        for line, name in named + opened
    ]


def costly_imports(path: Path, root: Path = ROOT) -> list[str]:
    return [
        f"{where(path, found.line, root)} imports {found.name} at module level: import it inside the command"
        for found in imports(path, root)
        if found.top in HEAVY and not found.in_function and not found.for_typing
    ]


def pickles(path: Path, root: Path = ROOT) -> list[str]:
    found = [(i.line, f"imports {i.name}") for i in imports(path, root) if i.top in PICKLES and i.name not in HARMLESS]
    for call in calls(path):
        values = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
        if values.get("allow_pickle", False) is not False:
            found.append((call.lineno, "allows a pickle"))
        if "weights_only" in values and values["weights_only"] is not True:
            found.append((call.lineno, "does not say weights_only=True"))
        # torch < 2.6, which pyproject.toml admits, unpickles by default.
        if ast.unparse(call.func) == "torch.load" and "weights_only" not in values:
            found.append((call.lineno, "calls torch.load without weights_only=True"))
    return [f"{where(path, line, root)} {what}: a pickle runs code of whoever wrote it" for line, what in found]


def too_long(path: Path, root: Path = ROOT) -> list[str]:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    return [f"{path.relative_to(root)} has {lines} lines, {LONGEST_MODULE} at most"] if lines > LONGEST_MODULE else []


def all_order(name: str) -> tuple[int, str]:
    """The order that ruff's RUF022 keeps: CONSTANTS, Classes, functions."""
    if name.isupper() and len(name) > 1:
        return 0, name
    return (1 if name[:1].isupper() else 2), name


def unsorted_all(path: Path, root: Path = ROOT) -> list[str]:
    names = declared_all(path)
    if names == sorted(set(names), key=all_order):
        return []
    return [f"{path.relative_to(root)}: __all__ is not sorted, or names something twice"]


def declared_all(path: Path) -> list[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                return list(ast.literal_eval(node.value))
    return []


def modules(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


def dotted(path: Path) -> str:
    return ".".join([*package_of(path), *([] if path.name == "__init__.py" else [path.stem])])


def violations(reader: Callable[[Path], list[str]], paths: list[Path]) -> list[str]:
    assert paths, "no module was found to read: the test looks in the wrong place"
    return [line for path in paths for line in reader(path)]


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def loaded(code: str, folder: Path) -> set[str]:
    """The costly modules that a new interpreter, started away from the checkout, has loaded after `code`."""
    report = f"\nimport sys\nprint('\\nLOADED', *({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code + report], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}{done.stderr}"
    word, *names = done.stdout.splitlines()[-1].split()
    assert word == "LOADED"
    return set(names)


@pytest.mark.parametrize(
    ("reader", "name", "source"),
    [
        (wrong_way, "aligners/a.py", "from ..stitching import model"),
        (wrong_way, "aligners/a.py", "def f():\n    from .. import cli"),
        (wrong_way, "aligners/linear/a.py", "from ...stitching.dumps import open_dump"),
        (wrong_way, "aligners/__init__.py", "from ..stitching import model"),
        (wrong_way, "stitching/a.py", "import suture.cli.main"),
        (
            wrong_way,
            "stitching/a.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..cli import main",
        ),
        (wrong_way, "cli/a.py", "import benchmarks.run"),
        (wrong_way, "cli/a.py", "from tests import test_layout"),
        (terminal_imports, "stitching/a.py", "def f():\n    from rich.table import Table"),
        (terminal_imports, "aligners/a.py", "import typer"),
        (file_access, "aligners/a.py", "from pathlib import Path"),
        (file_access, "aligners/a.py", "def f(p):\n    with open(p) as file:\n        return file"),
        (file_access, "aligners/a.py", "def f(p):\n    return p.read_text()"),
        (file_access, "aligners/a.py", "import numpy as np\nx = np.load('x.npy')"),
        (costly_imports, "cli/a.py", "import torch.nn"),
        (costly_imports, "cli/a.py", "try:\n    from numpy import ndarray\nexcept ImportError:\n    pass"),
        (pickles, "aligners/a.py", "import pickle"),
        (pickles, "aligners/a.py", "from pickle import loads"),
        (pickles, "aligners/a.py", "import numpy as np\nx = np.load('x', allow_pickle=True)"),
        (pickles, "aligners/a.py", "import torch\nx = torch.load('x', weights_only=False)"),
        (pickles, "aligners/a.py", "import torch\nx = torch.load('x')"),
        (too_long, "aligners/a.py", "x = 1\n" * (LONGEST_MODULE + 1)),
        (unsorted_all, "aligners/a.py", "__all__ = ['b', 'a']"),
        (unsorted_all, "aligners/a.py", "__all__ = ['a', 'a']"),
        (unsorted_all, "aligners/a.py", "__all__: list[str] = ['Affine', 'ALIGNERS']"),
    ],
)
def test_broken_rules_are_seen(reader: Callable[..., list[str]], name: str, source: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")
    assert len(reader(path, tmp_path)) == 1


@pytest.mark.parametrize(
    ("reader", "name", "source"),
    [
        (
            wrong_way,
            "stitching/a.py",
            "import suture\nfrom ..aligners import Affine\nfrom .model import stitch\nimport os",
        ),
        (
            file_access,
            "aligners/a.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pathlib import Path",
        ),
        (file_access, "aligners/a.py", "def f(alignment, p):\n    alignment.save(p)\n    '''open(p)'''  # open(p)"),
        (costly_imports, "cli/a.py", "import json\ndef command():\n    import torch"),
        (pickles, "aligners/a.py", "import torch\nx = torch.load('x', weights_only=True)  # no pickle"),
        (pickles, "stitching/a.py", "from pickle import UnpicklingError"),
        (too_long, "aligners/a.py", "x = 1\n" * LONGEST_MODULE),
        (unsorted_all, "aligners/a.py", "__all__ = ['ALIGNERS', 'CCA', 'Affine', 'load']"),
    ],
)
def test_kept_rules_raise_no_alarm(reader: Callable[..., list[str]], name: str, source: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")
    assert reader(path, tmp_path) == []


def test_packages_are_all_listed() -> None:
    """setuptools leaves a sub-package that is not listed out of the wheel, without a word."""
    listed = pyproject()["tool"]["setuptools"]["packages"]
    folders = [path.parent for path in modules(*ROOMS) if path.name == "__init__.py"]
    assert sorted(listed) == sorted(["suture", *(".".join(["suture", *f.relative_to(ROOT).parts]) for f in folders)])


def test_every_module_is_in_a_package() -> None:
    """A folder without `__init__.py` works from the checkout and is missing from the wheel."""
    bare = {path.parent for path in modules(*ROOMS) if not (path.parent / "__init__.py").exists()}
    assert sorted(str(folder.relative_to(ROOT)) for folder in bare) == []


def test_dependencies_point_one_way() -> None:
    assert violations(wrong_way, modules(*ORDER)) == []


def test_only_cli_writes_to_a_terminal() -> None:
    assert violations(terminal_imports, modules("aligners", "stitching")) == []


def test_aligners_know_no_files_but_their_own() -> None:
    assert (
        violations(file_access, [path for path in modules("aligners") if path != ROOT / "aligners" / "file.py"]) == []
    )


def test_cli_modules_import_nothing_costly() -> None:
    assert violations(costly_imports, modules("cli")) == []


def test_package_has_no_pickle() -> None:
    assert violations(pickles, [ROOT / "__init__.py", *modules(*ROOMS)]) == []


def test_modules_are_short() -> None:
    assert violations(too_long, [ROOT / "__init__.py", *modules(*ROOMS)]) == []


def test_top_level_holds_only_what_the_design_names() -> None:
    """Asked of git: what lies about untracked is nobody's layout."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    top = {name.split("/")[0] for name in listing.stdout.split("\0") if name}
    assert {"aligners", "pyproject.toml"} <= top
    assert sorted(name for name in top - ALLOWED_AT_TOP if not name.startswith(".")) == []


def test_root_imports_nothing() -> None:
    """A lazy `__getattr__` may import; loading the package may not."""
    assert [found.name for found in imports(ROOT / "__init__.py") if not found.in_function] == []


def test_every_all_is_sorted() -> None:
    assert violations(unsorted_all, modules(*ROOMS)) == []


def test_every_name_in_all_exists() -> None:
    missing = [
        f"{dotted(path)}.{name}"
        for path in modules(*ROOMS)
        for name in declared_all(path)
        if not hasattr(importlib.import_module(dotted(path)), name)
    ]
    assert missing == []


COMMANDS = {
    "import suture": "import suture",
    "suture --help": """
import sys
from suture.cli.main import app
sys.argv = ["suture", "--help"]
try:
    app()
except SystemExit as done:
    assert not done.code, done.code
""",
    "every module of cli": "import importlib\nfor name in {modules}:\n    importlib.import_module(name)",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_importing_costs_nothing(command: str, tmp_path: Path) -> None:
    code = COMMANDS[command].replace("{modules}", repr([dotted(path) for path in modules("cli")]))
    assert loaded(code, tmp_path) == set()


def test_a_costly_import_would_be_seen(tmp_path: Path) -> None:
    assert "numpy" in loaded("import numpy\nprint('help')", tmp_path)
