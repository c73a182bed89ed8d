"""The tables in the README and the docs are those of the records."""

import pages
import pytest


@pytest.mark.parametrize(("page", "name"), list(pages.TABLES))
def test_table_is_that_of_the_records(page: str, name: str):
    assert pages.table(page, name) == pages.TABLES[page, name]()
