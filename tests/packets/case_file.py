# SPDX-License-Identifier: Apache-2.0
"""What the make_*.py share: the file in tests/data/packets, written or checked."""

import json
import os
import sys

FOLDER = os.path.join(os.path.dirname(__file__), '..', 'data', 'packets')


def json_lines(entries):
    """A list in JSON, an entry a line."""
    return '[\n' + ',\n'.join(json.dumps(entry) for entry in entries) + '\n]'


def write_or_check(name, text):
    """Writes the file; with --check says whether it is what would be written. The exit status."""
    path = os.path.join(FOLDER, name)
    if '--check' not in sys.argv[1:]:
        with open(path, 'w', encoding='ascii') as file:
            file.write(text)
        return 0
    with open(path, encoding='ascii') as file:
        if file.read() == text:
            return 0
    script = os.path.basename(sys.argv[0])
    print(f'{name} is not what {script} writes: run it and look at the difference')
    return 1
