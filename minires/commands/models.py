"""Implement `minires models`, which lists the networks that have a name, and their sizes."""
from __future__ import annotations

import json

from .. import models


def text(*, as_json: bool = False) -> str:
    """Return every network with its layers, parameters and multiply-accumulates, as a table or as one JSON list."""
    if as_json:
        return json.dumps([net._asdict() for net in models.listing()], indent=1)
    lines, family = [], ""
    for net in models.listing():
        if net.family != family:
            family = net.family
            lines += [f"{family}; images {' x '.join(map(str, net.input_shape))}",
                      f"    {'':30}{'layers':>6}{'parameters':>14}{'million MACs':>15}"]
        lines.append(f"    {net.name:30}{net.layers:6}{net.parameters:14,}{net.macs / 1e6:15,.2f}")
    return "\n".join(lines)
