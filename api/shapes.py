"""What texts of certain kinds look like: a pattern for machines, and words for people.

The patterns mean the same to pydantic, to JSON Schema and to `re`. Knows no document.
"""

from __future__ import annotations

# What would break a line, hide a part of a text or turn it around where it is shown.
TEXT = r"^[^\x00-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]*$"
NO_NUL = r"^[^\x00]*$"
LABEL_KEY = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$"
IDENTIFIER = r"^[a-z]+_[0-9a-z]{1,36}$"
VARIABLE_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
PLAIN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
PROJECT_NAME = r"^[a-z0-9][a-z0-9._-]{0,127}$"
# A requirement never begins with "-": it would be an option to pip.
REQUIREMENT = (
    r"^[A-Za-z0-9]"
    r"[^\x00-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]*$"
)
PYTHON_VERSION = r"^3\.[0-9]{1,2}$"
ATTEMPT_ID = r"^att_[0-9a-z]{26}$"
RANK = "^(0|[1-9][0-9]{0,5})$"
REASON = r"^[A-Za-z]{1,64}$"
IDEMPOTENCY_KEY = r"^[\x21-\x7e]{1,255}$"
MONTH = "^[0-9]{4}-(0[1-9]|1[0-2])$"
CURSOR = r"^[A-Za-z0-9_-]+$"
ENTITY_TAGS = r'^ *(\*|(W/)?"[^"]*" *(, *(W/)?"[^"]*" *)*)$'

WORDS = {
    TEXT: "must not hold control characters",
    NO_NUL: "must not hold NUL characters",
    LABEL_KEY: "must begin with a letter or digit; then letters, digits and . _ / -, 128 in all",
    IDENTIFIER: "must be an id as the service gives them, such as file_01kasy0e5xq5b2p0v3m8n7r4tz",
    VARIABLE_NAME: "must begin with a letter or _; then letters, digits and _, 128 in all",
    PLAIN_NAME: "must begin with a letter or digit; then letters, digits and . _ -, 128 in all",
    PROJECT_NAME: "must begin with a small letter or digit; then small letters, digits and . _ -, "
    "128 in all",
    REQUIREMENT: "must begin with a letter or digit and not hold control characters, such as "
    "numpy==2.3.5",
    PYTHON_VERSION: "must be a version of Python 3, such as 3.11",
    ATTEMPT_ID: "must be the id of an attempt, att_ and 26 characters",
    RANK: "must be the number of a rank, such as 0",
    REASON: "must be one word of at most 64 letters",
    IDEMPOTENCY_KEY: "must have 1 to 255 visible ASCII characters",
    MONTH: "must be a year and a month, such as 2031-05",
    CURSOR: "must be a cursor: use `next_cursor` of the page before, or the `id` of an event",
    ENTITY_TAGS: 'must be an ETag in quotation marks, or "*"',
}
"""What a text that does not match is told."""
