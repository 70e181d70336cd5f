"""Derived features in cells: the header's options, what is shown, and how it fails."""

from __future__ import annotations

from IPython.core.interactiveshell import InteractiveShell

from tests.jupyter.test_magics import SQL, fails, run, shell, shows

__all__ = ["shell"]
CELL = """%%feature ratio --entity user {options}
SELECT user, :amount / NULLIF(total_readtime, 0) AS ratio,
       CASE WHEN :country = 'NL' THEN total_readtime END AS dutch
FROM reading_time"""


def test_a_derived_cell_from_preview_to_serving(shell: InteractiveShell) -> None:
    shows(shell, "%feature connect")
    shows(shell, "%feature upload reads --stream read_events --time ts")
    shows(shell, f"%%feature reading_time --entity user\n{SQL}")
    text = fails(shell, CELL.format(options=""))
    assert "The types do not fit a = b" in text
    assert "line 3" in text
    declared = '--request "amount BIGINT, country VARCHAR"'
    card = shows(shell, CELL.format(options=f"{declared} --with amount=7 --with country=NL"))
    assert "ratio DOUBLE, dutch BIGINT" in card
    assert "amount BIGINT = 7, country VARCHAR = NL" in card
    assert "derived from reading_time" in card
    assert "ratio DOUBLE" in shows(shell, "%feature preview ratio --with amount=3")
    assert "number" not in fails(shell, CELL.format(options=f"{declared} --with amount")).lower()
    assert "is a BIGINT" in fails(shell, CELL.format(options=f"{declared} --with amount=x"))
    assert "--with-inputs" in fails(shell, "%feature promote ratio")
    status = shows(shell, "%feature promote ratio --with-inputs")
    assert "live v1" in status
    result, shown = run(
        shell, 'fs.serve(["ratio", "dutch"], user=["u1"], amount=[7], country="NL").to_dict()'
    )
    total = sum(range(1, 100, 7))
    assert result.result == {"user": ["u1"], "ratio": [7 / total], "dutch": [total]}, shown.stderr
    result, _ = run(shell, 'fs.serve(["ratio"], user=["u1"], request={"amount": 7})')
    assert "1 served" in repr(result.result)
    assert "reading_time" in shows(shell, "%feature status ratio")
    assert "0 mismatches" in shows(shell, "%feature verify ratio")
    assert "ratio" in shows(shell, "%feature catalog read_events")
