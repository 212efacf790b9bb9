"""Show or change which CLIP model names this gateway owns.

A CLIP name that the gateway ever answered stays its own: when the route is missing or has other weights, requests get
503 instead of vectors of another space. After the index was rebuilt (or the model was taken
out of use), `forget` resolves it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from immich_triton.immich.model_names import clean_name
from immich_triton.ml.ledger import Ledger, LedgerError
from immich_triton.ml.settings import default_state_dir


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--state-dir",
        type=Path,
        default=default_state_dir(),
        help="the gateway's immich_state_dir (default: %(default)s)",
    )
    commands = parser.add_subparsers(dest="command", required=True, help="what to do")
    commands.add_parser("show", help="list the owned names and the SHA-256 of their weights")
    forget = commands.add_parser("forget", help="give a name up; takes effect at once, without a restart")
    forget.add_argument("name", help="an Immich model name, e.g. ViT-B-16__openai")
    options = parser.parse_args(arguments)
    ledger = Ledger(options.state_dir)
    try:
        if options.command == "show":
            for name, digest in sorted(ledger.owned().items()):
                print(f"{name}  {digest}")
            return 0
        if ledger.forget(clean_name(options.name)):
            print(f"{options.name} is no longer owned. Re-run Smart Search for all photos if its model changed.")
            return 0
    except LedgerError as error:
        print(f"ledger: {error}", file=sys.stderr)
        return 1
    print(f"ledger: {options.name} is not owned; `immich-triton ledger show` lists what is", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
