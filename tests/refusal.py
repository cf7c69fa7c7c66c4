"What a refusal looks like: one sentence, with the words that matter."

import pytest

from ssnas_colab.core.basics import UserError


def refused(*words, act):
    "`act()` must raise a `UserError` of one sentence that has all these words."
    with pytest.raises(UserError) as caught:
        act()
    said = str(caught.value)
    assert "\n" not in said and said[-1] not in ".!" and all(str(word) in said for word in words), said
