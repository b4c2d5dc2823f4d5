"""The Dagster test of docs/emulator.md passes as it is printed, with the fixtures of the pytest plugin."""

import inspect
import re
import runpy
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "emulator.md"


def test_the_printed_test(request, tmp_path_factory):
    section = PAGE.read_text().split("\n### Dagster\n")[1].split("\n## ")[0].split("\n### ")[0]
    code = re.search(r"^```python\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE).group(1)
    module = tmp_path_factory.mktemp("theirs") / "test_churn.py"
    module.write_text(code)
    test = runpy.run_path(str(module))["test_churn"]
    test(**{name: request.getfixturevalue(name) for name in inspect.signature(test).parameters})
