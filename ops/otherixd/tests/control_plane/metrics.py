"""Reads metrics with Prometheus' own parser, checks each family, and prints the samples as JSON."""

import json
import sys
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families

with urllib.request.urlopen(sys.argv[1], timeout=10) as answer:
    assert "application/openmetrics-text" in answer.headers["Content-Type"], answer.headers
    text = answer.read().decode()
samples = []
for family in text_string_to_metric_families(text):
    assert family.documentation, f"{family.name} is not described"
    assert family.name.startswith(("otherix_", "process_")), family.name
    samples += [[sample.name, sample.labels, sample.value] for sample in family.samples]
print(json.dumps(samples))
