"""Write docs/schemas/*.json: the JSON Schemas of the records, made from the code.

Run in the root of the checkout, in an environment that has the project: .nox/core/bin/python .ci/schemas.py
"""

import json
from pathlib import Path

from tabpfn_assets.schemas import PUBLISHED, record_schema

FOLDER = Path(__file__).parents[1] / "docs" / "schemas"

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, kind in PUBLISHED.items():
        path = FOLDER / f"{name}.json"
        path.write_text(json.dumps(record_schema(kind), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(path.relative_to(FOLDER.parents[1]))
