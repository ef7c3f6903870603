"""A run's progress bar and a plan's table in a real Jupyter kernel."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.engine("harnesses"), pytest.mark.filterwarnings("ignore")]


def test_a_bar_and_a_table(weights, tmp_path):
    import nbclient
    import nbformat

    cells = [
        "import memserve\n"
        f"model = memserve.generator({str(weights / 'tiny')!r}, backend='hf', dtype='float32')\n"
        f"done = memserve.run.run(['the river'] * 9, {str(tmp_path / 'answers.jsonl')!r}, generator=model,\n"
        "                        settings={'max_tokens': 4})",
        "memserve.plan.best('llama-70b', '4xV100')",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(book, timeout=600).execute()
    shown = [output.get("data", {}).get("text/html", "") for cell in book.cells for output in cell.outputs]
    assert any('<progress value="9" max="9">' in html for html in shown)
    assert any("<table>" in html and "vllm" in html for html in shown)
