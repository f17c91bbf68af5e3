"""The catalogue of error codes: the shipped one, and a file of the operator's own over it."""

import re
import tomllib
from pathlib import Path

import pytest

from bridge import config
from bridge.errors import ConfigurationError
from bridge.report.catalogue import (
    NO_ERROR,
    UNKNOWN_ERROR,
    Catalogue,
    ErrorMeaning,
    load_catalogue,
    shipped_catalogue,
)
from bridge.report.symbols import ErrorCategory, ErrorRetry

ROOT = Path(__file__).parents[3]
FILE = config.data_directory("config") / "error_codes.toml"
DOCUMENT = tomllib.loads(FILE.read_text())

TABLE = [
    ("131026", "UNDELIVERABLE", "NO"),
    ("131047", "RE_ENGAGEMENT", "NO"),
    ("131049", "ECOSYSTEM_LIMIT", "LATER"),
    ("131050", "OPT_OUT", "NO"),
    ("131048", "SPAM_LIMIT", "LATER"),
    ("131056", "RATE_LIMIT", "LATER"),
    ("130429", "RATE_LIMIT", "LATER"),
    ("4", "RATE_LIMIT", "LATER"),
    ("80007", "RATE_LIMIT", "LATER"),
    ("131042", "PAYMENT", "NO"),
    ("368", "POLICY", "NO"),
    ("131031", "POLICY", "NO"),
    *((code, "TEMPLATE", "NO") for code in ("132000", "132001", "132005", "132007", "132012", "132016")),
    ("132015", "TEMPLATE", "LATER"),
    *((code, "MEDIA", "NO") for code in ("131051", "131052", "131053")),
    *((code, "PERMISSION", "NO") for code in ("3", "10", "200", "250", "299", "131005", "131030")),
    *((code, "ACCOUNT", "NO") for code in ("190", "131045", "33", "137000")),
    ("131043", "EXPIRED", "NO"),
    *((code, "TRANSIENT", "LATER") for code in ("1", "2", "131000", "131016", "133004")),
    *((code, "UNKNOWN", "UNKNOWN") for code in ("130472", "SRVC_TIMEOUT", "OUT_OF_SERVICE", "199", "300", "0200")),
    (None, "NONE", "NONE"),
]


# --- the shipped one ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "category", "retry"), TABLE)
def test_a_code_means_what_the_table_says(code: str | None, category: str, retry: str) -> None:
    """Each code of the table, the edges of its range, and codes outside it."""
    assert (category, retry) == tuple(shipped_catalogue().meaning(code))


def test_white_space_around_a_code_changes_nothing() -> None:
    """The code itself is published as it came; only the look-up trims it."""
    assert shipped_catalogue().meaning("131026") == shipped_catalogue().meaning(" 131026 ")
    assert " 131026 " in shipped_catalogue()


def test_a_code_that_is_unknown_on_purpose_is_in_the_catalogue() -> None:
    """Unlike one that nobody listed; 0 means no error, so it is none."""
    listed = [code for code in ("130472", "SRVC_TIMEOUT", "299", "0200", "0", "OK", "") if code in shipped_catalogue()]
    assert listed == ["130472", "SRVC_TIMEOUT", "299"]


def test_every_list_says_where_it_is_and_when_it_was_read() -> None:
    """And what the copy was that was read."""
    assert len(DOCUMENT["lists"]) == 4
    for each in DOCUMENT["lists"]:
        assert each.keys() == {"name", "address", "read", "copy"}
        assert each["address"].startswith("https://")


def test_every_code_is_described() -> None:
    """One of UNKNOWN says why it is that: nobody knows the retry of what has no category."""
    for code, entry in DOCUMENT["codes"].items():
        assert entry.keys() == {"category", "retry", "what"}, code
        assert entry["what"].strip(), code
        assert (entry["category"] == "UNKNOWN") == (entry["retry"] == "UNKNOWN"), code


def test_the_head_of_the_file_names_every_category() -> None:
    """Those that may be given, in the order of the enum."""
    words = FILE.read_text().partition("# category: ")[2].partition(", or UNKNOWN.")[0].replace("#", "").split()
    assert words == [each.value for each in ErrorCategory if each.value not in {"NONE", "UNKNOWN"}]


# --- a file of the operator's own --------------------------------------------------------------------------------------


def own(path: Path, text: str) -> Catalogue:
    """The catalogue with this over it, as the configuration names it."""
    file = path / "own.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    loaded = config.load(environment={}, assignments=[f"events.error_codes={file}"])
    return load_catalogue(loaded.settings.events.own_error_codes)


def test_without_a_file_of_ones_own_it_is_the_shipped_one() -> None:
    """The key is empty."""
    assert config.load(environment={}).settings.events.own_error_codes is None
    assert load_catalogue(None) is shipped_catalogue()


def test_an_entry_adds_a_code_or_replaces_a_meaning(tmp_path: Path) -> None:
    """All else stays as it is shipped, and the shipped one itself is not changed."""
    catalogue = own(
        tmp_path,
        """[codes]
        131026 = { category = "OPT_OUT", retry = "LATER" }
        " Own.Code " = { category = "TRANSIENT", retry = "UNKNOWN", what = "ours" }
        250-251 = { category = "POLICY", retry = "NO" }
        131050 = { category = "UNKNOWN", retry = "UNKNOWN" }
        """,
    )

    expected = dict(shipped_catalogue().meanings)
    expected["131026"] = ErrorMeaning(ErrorCategory.OPT_OUT, ErrorRetry.LATER)
    expected["Own.Code"] = ErrorMeaning(ErrorCategory.TRANSIENT, ErrorRetry.UNKNOWN)
    expected |= dict.fromkeys(("250", "251"), ErrorMeaning(ErrorCategory.POLICY, ErrorRetry.NO))
    expected["131050"] = UNKNOWN_ERROR
    assert catalogue.meanings == expected
    assert catalogue.meaning(None) == NO_ERROR
    assert "131050" in catalogue
    assert shipped_catalogue().meaning("131026") == (ErrorCategory.UNDELIVERABLE, ErrorRetry.NO)


@pytest.mark.parametrize("text", ["", "[codes]\n", FILE.read_text()], ids=["empty", "no code", "the shipped file"])
def test_a_file_that_says_nothing_else_changes_nothing(tmp_path: Path, text: str) -> None:
    """The shipped file, given as one's own, is taken as it is."""
    assert own(tmp_path, text).meanings == shipped_catalogue().meanings


CATEGORIES = (
    "UNKNOWN, UNDELIVERABLE, RE_ENGAGEMENT, ECOSYSTEM_LIMIT, OPT_OUT, SPAM_LIMIT, RATE_LIMIT, PAYMENT, POLICY, TEMPLATE, MEDIA, "
    "PERMISSION, ACCOUNT, EXPIRED, TRANSIENT"
)
RETRIES = "UNKNOWN, NO, LATER"
GOOD = 'category = "POLICY", retry = "NO"'
WRONG_FILES = {
    "unknown category": (
        '[codes]\n7 = { category = "POLICE", retry = "NO" }',
        f"codes.7: category is 'POLICE', which does not exist; give one of {CATEGORIES}",
    ),
    "unknown retry": (
        '[codes]\n7 = { category = "POLICY", retry = "no" }',
        f"codes.7: retry is 'no', which does not exist; give one of {RETRIES}",
    ),
    "retry of another type": (
        '[codes]\n7 = { category = "POLICY", retry = false }',
        f"codes.7: retry is False, which does not exist; give one of {RETRIES}",
    ),
    "no category": ('[codes]\n7 = { retry = "NO" }', f"codes.7: it has no category; give one of {CATEGORIES}"),
    "no retry": ('[codes]\n7 = { category = "POLICY" }', f"codes.7: it has no retry; give one of {RETRIES}"),
    "category NONE": (
        '[codes]\n7 = { category = "NONE", retry = "NO" }',
        f"codes.7: category is NONE, which is for reports without an error, not for a code; give one of {CATEGORIES}",
    ),
    "retry NONE": (
        '[codes]\n7 = { category = "POLICY", retry = "NONE" }',
        f"codes.7: retry is NONE, which is for reports without an error, not for a code; give one of {RETRIES}",
    ),
    "blank code": (
        f'[codes]\n" " = {{ {GOOD} }}',
        'codes." ": the code is blank; write the code as the provider sends it',
    ),
    "code that means none": (
        f"[codes]\nDELIVERED = {{ {GOOD} }}",
        "codes.DELIVERED: the code means that there is no error; leave it out",
    ),
    "range with zeros": (
        f"[codes]\n01-03 = {{ {GOOD} }}",
        "codes.01-03: the range has zeros before its numbers; write it without them",
    ),
    "code twice but for white space": (
        f'[codes]\n7 = {{ {GOOD} }}\n" 7" = {{ {GOOD} }}',
        'codes." 7": the code 7 is in the entry codes.7 as well; keep one of them',
    ),
    "code in a range as well": (
        f"[codes]\n7 = {{ {GOOD} }}\n5-9 = {{ {GOOD} }}",
        "codes.5-9: the code 7 is in the entry codes.7 as well; keep one of them",
    ),
    "range from its end": (
        f"[codes]\n9-5 = {{ {GOOD} }}",
        "codes.9-5: the range ends before it begins; write 5-9",
    ),
    "endless range": (
        f"[codes]\n1-10001 = {{ {GOOD} }}",
        "codes.1-10001: the range has more than 10000 codes; make it smaller",
    ),
    "unknown key": (
        f"[codes]\n7 = {{ {GOOD}, why = 'x' }}",
        "codes.7: there is no key why; there are category, retry, what",
    ),
    "dot without quotes": (
        f"[codes]\nOwn.Code = {{ {GOOD} }}",
        "codes.Own: there is no key Code; put a code with a dot in quotes",
    ),
    "description of another type": (
        f"[codes]\n7 = {{ {GOOD}, what = 1 }}",
        "codes.7: what is not text; write it in quotes, or leave it out",
    ),
    "entry that is no table": (
        '[codes]\n7 = "POLICY"',
        'codes.7: it is not a table; write { category = "…", retry = "…" }',
    ),
    "unknown table": (f"7 = {{ {GOOD} }}", "7: there is no such table; write [codes]"),
    "codes that are no table": ("codes = 7", "codes: it is not a table; write [codes]"),
}


@pytest.mark.parametrize(("text", "line"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_what_is_wrong_in_it_is_named_with_the_key_the_file_and_the_entry(tmp_path: Path, text: str, line: str) -> None:
    """Each with what to do."""
    with pytest.raises(ConfigurationError) as refused:
        own(tmp_path, text)

    first, *rest = str(refused.value).splitlines()
    assert first == f"events.error_codes: {tmp_path / 'own.toml'} can't be used:"
    assert f"  {line}" in rest


def test_every_wrong_entry_is_named_at_once(tmp_path: Path) -> None:
    """Nobody should have to start four times."""
    with pytest.raises(ConfigurationError) as refused:
        own(tmp_path, f'x = 1\n[codes]\n5 = 1\n6 = {{ {GOOD} }}\n7 = {{ category = "A", retry = "B" }}\n')

    assert [line.split(": ")[0].strip() for line in str(refused.value).splitlines()[1:]] == [
        "x",
        "codes.5",
        "codes.7",
        "codes.7",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[codes",
            "is not TOML: Expected ']' at the end of a table declaration (at end of document); correct that line",
        ),
        (
            f"[codes]\n7 = {{ {GOOD} }}\n7 = {{ {GOOD} }}\n",
            f"which is: 7 = {{ {GOOD} }}; correct that line (a code may be there only once)",
        ),
        (
            f"[codes.7]\n{GOOD.replace(', ', chr(10))}\n[codes.7]\n",
            "which is: [codes.7]; correct that line (a code may be there only once)",
        ),
        ("\udcff", "is not UTF-8 text: "),
    ],
)
def test_a_file_that_is_not_toml_is_named_with_the_line(tmp_path: Path, text: str, words: str) -> None:
    """A code that is there twice is told by TOML's parser, which does not name it: the line does."""
    with pytest.raises(ConfigurationError) as refused:
        own(tmp_path, text)

    assert str(refused.value).startswith(f"events.error_codes: {tmp_path / 'own.toml'} is not ")
    assert words in str(refused.value)


def test_a_file_that_can_t_be_read_is_named(tmp_path: Path) -> None:
    """One that is not there, and a directory."""
    for path, why in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigurationError) as refused:
            load_catalogue(path)
        assert str(refused.value) == f"events.error_codes: can't read {path}: {why}; mount it, or correct the key"


def test_the_file_that_the_operations_guide_shows_can_be_used(tmp_path: Path) -> None:
    """And says something."""
    [text] = re.findall(r"```toml\n(\[codes\]\n.*?)```", (ROOT / "docs/operations.md").read_text(), re.DOTALL)
    catalogue = own(tmp_path, text)
    assert catalogue.meaning("SRVC_USER_BLOCKED") == (ErrorCategory.OPT_OUT, ErrorRetry.NO)
    assert catalogue.meaning("132199") == (ErrorCategory.TEMPLATE, ErrorRetry.NO)
