"""Write the pages that are generated from the code: the policy's fields and the plan's schema.

python tools/write_docs.py
"""

from __future__ import annotations

import json
from pathlib import Path

from siniantrust._files import write_atomic
from siniantrust.planner import plan_schema, policy_reference

DOCS = Path(__file__).resolve().parent.parent / "docs"

_POLICY = """# The policy file

A TOML file that says what the owner of the data demands. Generated from the code by `make docs`; an unknown field is an
error.

{reference}
"""


def pages() -> dict[str, str]:
    """Return each generated page by its name in docs/."""
    return {
        "policy.md": _POLICY.format(reference=policy_reference().strip()),
        "plan.schema.json": json.dumps(plan_schema(), indent=1) + "\n",
    }


def main() -> None:
    """Write all pages."""
    for name, text in pages().items():
        write_atomic(DOCS / name, text.encode())
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
