"""Prometheus' promtool reads the configuration, and runs the alerts on made-up series (rules.yml)."""

from __future__ import annotations

import re
from pathlib import Path

from tests.deploy.programs import promtool


def test_the_configuration_is_valid() -> None:
    done = promtool("check", "config", "docker/prometheus.yml")
    assert done.returncode == 0, done.stderr
    assert "1 rule files found" in done.stdout


def test_each_alert_fires_on_its_cause_alone() -> None:
    done = promtool("test", "rules", "tests/deploy/rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_among_those_tested() -> None:
    alerts = re.findall(r"- alert: (\w+)", Path("docker/prometheus-rules.yml").read_text(encoding="utf-8"))
    tested = re.findall(r'alertname="(\w+)"', Path("tests/deploy/rules.yml").read_text(encoding="utf-8"))
    assert alerts
    assert set(alerts) == set(tested)
