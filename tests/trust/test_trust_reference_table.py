from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from remote_cases import REFERENCE

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation import ReferenceValues, reference_from_table, reference_to_table

NAMES = st.text(min_size=1, max_size=10)


@given(
    st.builds(
        ReferenceValues,
        kind=NAMES,
        accepted=st.dictionaries(NAMES, st.frozensets(NAMES, min_size=1, max_size=3), min_size=1, max_size=3),
        at_least=st.dictionaries(NAMES, st.integers(0, 2**63), max_size=3),
        anchors=st.dictionaries(NAMES, st.binary(max_size=30), max_size=3),
    )
)
def test_reference_values_survive_their_table(reference: ReferenceValues) -> None:
    """What is written into a plan or a store is what is compared with later."""
    assert reference_from_table(reference_to_table(reference), origin="here") == reference


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"kind": ""}, "expected the kind of evidence"),
        ({"kind": 1}, "expected the kind of evidence"),
        ({"extra": 1}, "'extra' is no field"),
        ({"accepted": []}, "accepted: expected a table"),
        ({"accepted": {}}, "nothing is accepted"),
        ({"accepted": {"a": []}}, r"accepted\.a: expected a list of texts"),
        ({"accepted": {"a": "text"}}, r"accepted\.a: expected a list of texts"),
        ({"accepted": {"a": [1]}}, r"accepted\.a: expected a list of texts"),
        ({"at_least": {"a": True}}, r"at_least\.a: expected a whole number"),
        ({"at_least": {"a": -1}}, r"at_least\.a: expected a whole number"),
        ({"at_least": {"a": "1"}}, r"at_least\.a: expected a whole number"),
        ({"anchors": {"a": 1}}, r"anchors\.a: expected the base64"),
        ({"anchors": {"a": "?"}}, r"anchors\.a: expected the base64"),
    ],
)
def test_a_table_of_another_form_is_refused(changes: dict[str, Any], match: str) -> None:
    """Unknown fields, other types and tables that compare nothing are refused, and where they are from is named."""
    with pytest.raises(AttestationError, match=f"reference values of the policy.*{match}"):
        reference_from_table({**reference_to_table(REFERENCE), **changes}, origin="of the policy")
