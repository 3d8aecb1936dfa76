"""Preview, or apply, the stacks whose files differ from another commit; a report in Markdown on the standard output.

    python review.py preview origin/main
    python review.py apply HEAD^1

Run it in the checkout of the stacks folder, with the Pulumi CLI logged in to the backend and the passphrase set. Ends
with 1 when one stack's preview or update failed; the others are done nevertheless. A change of `Pulumi.yaml` or
`__main__.py` concerns every stack. A deleted file destroys nothing: the report says how to.
"""

import argparse
import subprocess
import sys
from pathlib import Path

PROGRAM = ("Pulumi.yaml", "__main__.py")
COMMENT_MAX = 60_000
"""Characters of all stacks together; GitHub takes 65,536."""

AROUND = 150
"""Characters of what stands around a stack's text, at most."""


def changes(base: str) -> tuple[list[str], list[str]]:
    """Stacks to look at, and stacks whose files are gone."""
    listed = subprocess.run(
        ["git", "diff", "--name-status", "--no-renames", f"{base}...HEAD"], capture_output=True, text=True, check=True
    ).stdout
    states = {path: state for state, path in (line.split("\t") for line in listed.splitlines())}
    if any(name in states for name in PROGRAM):
        return sorted(map(stack, Path().glob("Pulumi.?*.yaml"))), []
    # In this folder alone: `match` looks at the last part of a path.
    files = {path: state for path, state in states.items() if "/" not in path and Path(path).match("Pulumi.?*.yaml")}
    changed = sorted(stack(Path(path)) for path, state in files.items() if state != "D")
    return changed, sorted(stack(Path(path)) for path, state in files.items() if state == "D")


def stack(path: Path) -> str:
    """`Pulumi.iris.yaml` -> `iris`."""
    return path.name.removeprefix("Pulumi.").removesuffix(".yaml")


def run(action: str, name: str) -> tuple[bool, str]:
    """Whether it worked, and what Pulumi printed."""
    command = {
        "preview": ["preview", "--diff"],
        "apply": ["up", "--yes", "--skip-preview", "--diff"],
    }[action]
    done = subprocess.run(
        ["pulumi", *command, "--non-interactive", "--color", "never", "--stack", name],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode == 0, done.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["preview", "apply"])
    parser.add_argument("base", help="commit to compare with")
    asked = parser.parse_args()
    changed, gone = changes(asked.base)
    report, worked = [], True
    room = max(0, COMMENT_MAX // max(1, len(changed)) - AROUND)
    for name in changed:
        succeeded, text = run(asked.action, name)
        worked = worked and succeeded
        mark = "" if succeeded else " — failed"
        shown = text if len(text) < room else f"{text[:room]}\n…"
        report.append(
            f"### {name}{mark}\n\n<details open><summary>{asked.action}</summary>\n\n```\n{shown}\n```\n\n</details>"
        )
    report += [f"### {name} — its file is gone\n\nTo take it down: `pulumi destroy --stack {name}`" for name in gone]
    sys.stdout.write("\n\n".join(report or ["No stack file has changed."]) + "\n")
    return 0 if worked else 1


if __name__ == "__main__":
    sys.exit(main())
