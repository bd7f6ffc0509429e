"""The suite is no test module, but its assertions are to explain themselves as those of one do."""

import pytest

pytest.register_assert_rewrite("tests.serving.engine.contract_suite")
