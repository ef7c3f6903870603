"""The counts that tests/model/test_layouts.py compares with: small configs, built by transformers.

python benchmarks/layouts.py > tests/data/layouts.json      needs torch and transformers
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

import layout_configs
import oracle


def main() -> int:
    """One line for each family."""
    import transformers

    kinds = [*layout_configs.ENCODERS, *layout_configs.TOWERS]
    rows = {kind: [oracle.parameters(config) for config in layout_configs.configs(kind)] for kind in kinds}
    lines = ",\n ".join(f"{json.dumps(kind)}: {json.dumps(row)}" for kind, row in rows.items())
    print(f'{{"transformers": "{transformers.__version__}",\n {lines}}}')
    return 0


if __name__ == "__main__":
    sys.exit(main())
