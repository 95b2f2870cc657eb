#!/usr/bin/env python3
"""The rules that a machine can keep. Each failure says what to do instead.

  formatting        clang-format-19 (./dev format mends it)
  bugs              clang-tidy-19: of what has changed since the branch left its origin, or in the last 20 commits; --all: of all files
  include graph     a folder includes only folders of lower floors (docs/ARCHITECTURE.md)
  sizes             files of at most 600 lines, functions of at most 60 (tests: 120) unless a comment says why
  mutants           those that ./dev mutants makes fit the sources
  dead links        every relative link in the documents leads somewhere
  house rules       no work left open in comments, SPDX in LICENSE
"""
import concurrent.futures
import functools
import hashlib
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
FLOORS = {"base": 0, "io": 1, "http": 1, "balance": 1, "task": 1, "config": 2, "link": 2, "wire": 2, "proxy": 3, "probe": 3, "supervise": 3,
          "dispatch": 3, "lab": 3, "admin": 4, "cmd": 5}
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = {"src": 60, "tests": 120}
complaints = []


def complain(path, line, text):
    complaints.append(f"{path.relative_to(ROOT)}:{line}: {text}")


def tracked(*patterns):
    names = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [ROOT / name for name in names if (ROOT / name).exists()]


def check_includes(path):
    room = path.relative_to(ROOT / "src").parts[0]
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if match := re.match(r'#include "([a-z]+)/', line):
            other = match[1]
            if other not in FLOORS:
                complain(path, number, f"'{other}' is no room of src/")
            elif other != room and FLOORS[other] >= FLOORS[room]:
                complain(path, number, f"{room} (floor {FLOORS[room]}) must not include {other} (floor {FLOORS[other]}): move what is shared down, or pass it in from above")


def check_sizes(path):
    lines = path.read_text().splitlines()
    if len(lines) > FILE_LINES_MAX:
        complain(path, 1, f"{len(lines)} lines: split it by what it is about (at most {FILE_LINES_MAX})")
    most = FUNCTION_LINES_MAX["tests" if path.stem.endswith("_test") else path.relative_to(ROOT).parts[0]]
    begun = None
    for number, line in enumerate(lines, 1):
        # Formatted code: a function's body ends at a brace in the column where its first line began.
        if begun is None and re.match(r"(  )?[A-Za-z].*\) ?(const|override|noexcept|final| )*(-> [\w:<>]+ )?\{$", line) and not re.match(r"\s*(namespace|struct|class|enum)\b", line):
            begun = (number, len(line) - len(line.lstrip()))
        elif begun is not None and line.startswith(" " * begun[1] + "}") and (len(line) - len(line.lstrip())) == begun[1]:
            if number - begun[0] > most and "long:" not in lines[begun[0] - 2]:
                complain(path, begun[0], f"a function of {number - begun[0]} lines: give its parts names (at most {most}), or say why in a comment 'long: …' above it")
            begun = None


def check_marks(path):
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        if re.search(r"\b(TODO|FIXME|XXX)\b", line) and path.name != "lint.py":
            complain(path, number, "finish it, or open an issue: the code does not keep lists")


def check_links(path):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", line):
            if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists():
                complain(path, number, f"the link to '{target}' leads nowhere")


def check_format(paths):
    result = subprocess.run(["clang-format-19", "--dry-run", "--Werror", *map(str, paths)], capture_output=True, text=True)
    if result.returncode:
        files = sorted(set(re.findall(r"^(\S+?):\d+:\d+: error", result.stderr, re.M)))
        complaints.extend(f"{pathlib.Path(f).relative_to(ROOT)}: not formatted: run ./dev format" for f in files)


def tidy(path):
    result = subprocess.run(["clang-tidy-19", "-p", str(ROOT / "build/lint"), "--quiet", str(path)], capture_output=True, text=True, cwd=ROOT)
    if not result.returncode:
        return ""
    found = [line for line in result.stdout.splitlines() if "error:" in line]
    return "\n".join(found) or f"{path.relative_to(ROOT)}:1: clang-tidy ended with {result.returncode}: {result.stderr.strip()[-400:]}"


@functools.cache
def includes(path):
    """The project's headers that a file names itself."""
    folders = (ROOT / "src", path.parent)
    names = re.findall(r'^#include "([^"]+)"', path.read_text(), re.M)
    return [next(folder / name for folder in folders if (folder / name).exists()) for name in names if any((folder / name).exists() for folder in folders)]


@functools.cache
def dependencies(path):
    """A file and all of the project's headers that it sees."""
    found, left = set(), [path]
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left.extend(includes(one))
    return sorted(found)


def changed():
    """What differs from where this branch left its origin, or, on the origin's own branch, from 20 commits ago."""
    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.split()
    head, base = git("rev-parse", "HEAD"), git("merge-base", "HEAD", "origin/HEAD")
    if not base or base == head:
        base = git("rev-list", "--first-parent", "--max-count=21", "HEAD")[-1:]
    return {ROOT / name for name in git("diff", "--name-only", *base) + git("ls-files", "--others", "--exclude-standard")}


def worth_tidying(sources):
    """Of the source files those that changed, and for each changed header one that sees it."""
    names = changed()
    if ROOT / ".clang-tidy" in names:
        return sources
    wanted = {path for path in sources if path in names}
    for header in (name for name in names if name.suffix == ".h" and name.exists()):
        users = [path for path in sources if header in dependencies(path)]
        wanted.update(sorted(users, key=lambda path: (path not in wanted, path.stem != header.stem, len(dependencies(path))))[:1])
    return sorted(wanted)


def check_tidy(paths):
    """Each file once for each state of it, of its headers and of the settings: build/tidy remembers those that were clean."""
    cache = ROOT / "build/tidy"
    cache.mkdir(parents=True, exist_ok=True)
    settings = b"".join((ROOT / name).read_bytes() for name in (".clang-tidy", "CMakeLists.txt", "src/CMakeLists.txt"))
    todo = []
    for path in paths:
        key = hashlib.sha256(settings + str(path).encode())
        for one in dependencies(path):
            key.update(one.read_bytes())
        if not (cache / key.hexdigest()).exists():
            todo.append((path, cache / key.hexdigest()))
    if todo:
        print(f"clang-tidy: {len(todo)} files", flush=True)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, ((path, mark), found) in enumerate(zip(todo, pool.map(lambda item: tidy(item[0]), todo)), 1):
            if found:
                complaints.append(found)
            else:
                mark.touch()
            if number % 20 == 0:
                print(f"  {number} of {len(todo)}", flush=True)


def check_mutants():
    """That each still fits the sources."""
    listed = subprocess.run([sys.executable, ROOT / "tests/mutants.py", "--list"], capture_output=True, text=True)
    complaints.extend(f"tests/mutants.toml:1: {line.removeprefix('FAULT ')}" for line in listed.stdout.splitlines() if line.startswith("FAULT "))
    if listed.returncode and "FAULT " not in listed.stdout:
        complaints.append(f"tests/mutants.py:1: {listed.stderr.strip()[-400:]}")


def main():
    sources = tracked("src/*.cc", "src/*.h")
    tests = tracked("tests/*.cc", "tests/*.h")
    for path in sources:
        check_includes(path)
    for path in sources + tests:
        check_sizes(path)
    for path in tracked():
        if path.is_file() and path.suffix in (".cc", ".h", ".py", ".toml", ".md", ".txt", "") and path.name != "LICENSE":
            check_marks(path)
    for path in tracked("*.md"):
        check_links(path)
    check_format(sources + tests)
    check_mutants()
    checkable = [path for path in sources + tests if path.suffix == ".cc" and "fuzz" not in path.parts]
    check_tidy(checkable if "--all" in sys.argv[1:] else worth_tidying(checkable))
    for complaint in complaints:
        print(complaint)
    print(f"lint: {len(sources) + len(tests)} files, {len(complaints)} complaints")
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
