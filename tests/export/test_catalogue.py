from __future__ import annotations

import pytest

from export.__main__ import main
from models import NETWORKS


def test_every_network_is_listed_with_its_parameters_and_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows if len(row) > 5] == ["network", *NETWORKS]
    assert ["xception", "22,855,952", "imagenet", "299", "1,000", "no"] in rows
    assert ["kitchenware", "299", "6", "yes"] in rows
