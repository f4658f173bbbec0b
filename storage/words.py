"""The words of a text, as every index takes them: the same words are found in each of them.

Servers split texts differently, and some not at all where a script has no blanks. So texts are split here,
and an index is given words of `a-z0-9` alone, which no analyzer and no parser takes apart: a word with
other letters, or a very long one, is replaced by its digest. No text can be read back, and nothing in one is
syntax.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator

_LONGEST_WORD = 40
_SCRIPTS_WITHOUT_BLANKS = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u1100-\u11ff\uac00-\ud7af"  # Korean has blanks, and endings that are written to the word
    "\u3040-\u30ff\u31f0-\u31ff"  # Japanese syllables
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
# Signs that belong to the letter before them: Python counts them among the punctuation.
_MARKS = (
    "\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed"
    "\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963\u0980-\u0983\u09bc-\u09cd\u0a01-\u0a03"
    "\u0a3c-\u0a4d\u0a81-\u0a83\u0abc-\u0acd\u0b01-\u0b03\u0b3c-\u0b57\u0bbe-\u0bcd\u0c00-\u0c04"
    "\u0c3e-\u0c56\u0c81-\u0c83\u0cbc-\u0cd6\u0d00-\u0d03\u0d3b-\u0d4d\u0d82\u0d83\u0dca-\u0ddf"
)
_WORD = re.compile(
    rf"[{_SCRIPTS_WITHOUT_BLANKS}]+|(?:(?![{_SCRIPTS_WITHOUT_BLANKS}])[^\W_{_MARKS}][{_MARKS}]*)+"
)
_PLAIN = re.compile(rf"[a-z0-9]{{1,{_LONGEST_WORD}}}", re.ASCII)
_UNBROKEN = re.compile(rf"[{_SCRIPTS_WITHOUT_BLANKS}]")


def words_of(text: str) -> list[str]:
    """Return the words of a text in order; of scripts without blanks, each letter and each pair of them."""
    return [_spelled(word) for run in _runs(text) for word in _indexed(run)]


def asked_words(text: str, *, at_most: int = 256) -> list[str]:
    """Return the different words of a query, the first of a very long one; pairs where there are any."""
    found: dict[str, None] = {}
    for word in (_spelled(word) for run in _runs(text) for word in _asked(run)):
        found[word] = None
        if len(found) == at_most:
            break
    return list(found)


def joined(words: Iterable[str], size: int) -> str:
    """Return as many words, with blanks between them, as fit into so many bytes."""
    text = " ".join(words)
    if len(text) <= size:
        return text
    return text[: size + 1].rpartition(" ")[0]


def _runs(text: str) -> Iterator[str]:
    for found in _WORD.finditer(unicodedata.normalize("NFKC", text).casefold()):
        yield found.group()


def _indexed(run: str) -> Iterable[str]:
    if not _UNBROKEN.match(run):
        return (run,)
    return (*run, *_pairs(run))


def _asked(run: str) -> Iterable[str]:
    if len(run) == 1 or not _UNBROKEN.match(run):
        return (run,)
    return _pairs(run)


def _pairs(run: str) -> list[str]:
    return [run[at : at + 2] for at in range(len(run) - 1)]


def _spelled(word: str) -> str:
    if _PLAIN.fullmatch(word):
        return word
    return "u" + hashlib.blake2b(word.encode(errors="surrogatepass"), digest_size=9).hexdigest()
